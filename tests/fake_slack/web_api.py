"""The Web API. Each method checks scope, arguments and limits, and answers as Slack does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fake_slack import blockkit, strictness
from tests.fake_slack.lookups import Lookups
from tests.fake_slack.workspace import APP, BOT_USER, TEAM, Workspace

Arguments = dict[str, Any]
Answer = dict[str, Any]
VIEW_STACK_MAX = 3


def error_answer(error: str, **more: Any) -> Answer:
    return {"ok": False, "error": error, **more}


class WebApi:
    """``methods`` has the scope and the function of each method."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.methods: dict[str, tuple[str | None, Callable[[Arguments], Answer]]] = {
            "auth.test": (None, self.auth_test),
            "users.info": ("users:read", self.users_info),
            "conversations.info": ("channels:read", self.conversations_info),
            "conversations.members": ("channels:read", self.conversations_members),
            "chat.postMessage": ("chat:write", self.post),
            "chat.update": ("chat:write", self.update),
            "chat.postEphemeral": ("chat:write", self.post_ephemeral),
            "views.open": (None, self.views_open),
            "views.update": (None, self.views_update),
            "views.publish": (None, self.views_publish),
            "views.push": (None, self.views_push),
            **Lookups(workspace).methods,
        }

    def call(self, method: str, arguments: Arguments) -> Answer:
        """Carry out a call whose token was checked."""
        if method not in self.methods:
            self.workspace.problems.append(f"unknown method {method}")
            return error_answer("unknown_method")
        self.workspace.problems += strictness.problems_of_call(method, arguments)
        scope, answer = self.methods[method]
        if scope is not None and scope not in self.workspace.scopes:
            return error_answer("missing_scope", needed=scope, provided=",".join(sorted(self.workspace.scopes)))
        return answer(arguments)

    def auth_test(self, _arguments: Arguments) -> Answer:
        return {
            "ok": True,
            "team_id": TEAM,
            "team": "Strict",
            "user_id": BOT_USER,
            "bot_id": "B0BOT",
            "url": "https://strict.slack.com/",
            "user": "dbaccess",
        }

    def users_info(self, arguments: Arguments) -> Answer:
        user = self.workspace.users.get(arguments.get("user", ""))
        return {"ok": True, "user": user} if user else error_answer("user_not_found")

    def conversations_info(self, arguments: Arguments) -> Answer:
        """A private channel exists only for its members and needs another scope."""
        channel = self.workspace.channels.get(arguments.get("channel", ""))
        if channel is None or (channel.get("is_private") and not channel["is_member"]):
            return error_answer("channel_not_found")
        if channel.get("is_private") and "groups:read" not in self.workspace.scopes:
            return error_answer("missing_scope", needed="groups:read", provided=",".join(sorted(self.workspace.scopes)))
        return {"ok": True, "channel": channel}

    def conversations_members(self, arguments: Arguments) -> Answer:
        """Return few members a page, so that a caller that ignores pagination fails."""
        channel = self.workspace.channels.get(arguments.get("channel", ""))
        if channel is None:
            return error_answer("channel_not_found")
        members = channel.get("members", list(self.workspace.users))
        start = int(arguments.get("cursor") or 0)
        end = start + self.workspace.members_page
        following = str(end) if end < len(members) else ""
        return {"ok": True, "members": members[start:end], "response_metadata": {"next_cursor": following}}

    # Messages.

    def _place(self, channel: str) -> tuple[str, Answer | None]:
        """Return the channel id of a channel or person, or the error of a closed one."""
        if channel in self.workspace.users:
            user = self.workspace.users[channel]
            if user.get("messages_tab_disabled"):
                return "", error_answer("messages_tab_disabled")
            if user["is_bot"] or user["deleted"]:
                return "", error_answer("channel_not_found")
            return self.workspace.dm_of(channel), None
        found = self.workspace.channels.get(channel)
        if found is None or (found.get("is_private") and not found["is_member"]):
            return "", error_answer("channel_not_found")
        if found["is_archived"]:
            return "", error_answer("is_archived")
        return channel, None if found["is_member"] else error_answer("not_in_channel")

    def _content(self, arguments: Arguments, *, is_update: bool) -> Answer | None:
        wrong = blockkit.problems_of_message(arguments.get("blocks"), arguments.get("text") or "", is_update=is_update)
        if not wrong:
            return None
        self.workspace.problems += [f"message: {w}" for w in wrong]
        code = next((w for w in wrong if w in ("msg_too_long", "msg_blocks_too_long", "no_text")), "invalid_blocks")
        return error_answer(code, response_metadata={"messages": wrong})

    def post(self, arguments: Arguments) -> Answer:
        channel, closed = self._place(arguments.get("channel", ""))
        if closed or (closed := self._content(arguments, is_update=False)):
            return closed
        if arguments.get("unfurl_links") is not False or arguments.get("unfurl_media") is not False:
            self.workspace.problems.append("a message that may unfurl links")
        thread = arguments.get("thread_ts")
        if thread is not None and thread not in self.workspace.messages[channel]:
            return error_answer("thread_not_found")
        reply = {"thread_ts": thread} if thread else {}
        message = self.workspace.post(channel, text=arguments["text"], blocks=arguments.get("blocks"), **reply)
        return {"ok": True, "channel": channel, "ts": message["ts"], "message": message}

    def update(self, arguments: Arguments) -> Answer:
        channel, ts = arguments.get("channel", ""), arguments.get("ts", "")
        if channel not in self.workspace.channels:
            return error_answer("channel_not_found")
        message = self.workspace.messages[channel].get(ts)
        if message is None:
            return error_answer("message_not_found")
        if message["user"] != BOT_USER:
            return error_answer("cant_update_message")
        if self.workspace.channels[channel]["is_archived"]:
            return error_answer("is_inactive")
        if closed := self._content(arguments, is_update=True):
            return closed
        message |= {"text": arguments["text"], "blocks": arguments.get("blocks")}
        return {"ok": True, "channel": channel, "ts": ts, "text": message["text"]}

    def post_ephemeral(self, arguments: Arguments) -> Answer:
        channel, closed = self._place(arguments.get("channel", ""))
        if closed or (closed := self._content(arguments, is_update=False)):
            return closed
        person = self.workspace.users.get(arguments.get("user", ""))
        members = self.workspace.channels[channel].get("members")
        if person is None or person["deleted"] or (members is not None and person["id"] not in members):
            return error_answer("user_not_in_channel")
        self.workspace.ephemerals.append(
            {"user": arguments["user"], "channel": channel, "text": arguments.get("text", "")}
        )
        return {"ok": True, "message_ts": self.workspace.new_ts()}

    # Views.

    def _view(self, view: Any) -> Answer | None:
        wrong = blockkit.problems_of_view(view) if isinstance(view, dict) else ["no view"]
        self.workspace.problems += [f"view: {w}" for w in wrong]
        code = "view_too_large" if "view_too_large" in wrong else "invalid_arguments"
        return error_answer(code, response_metadata={"messages": wrong}) if wrong else None

    def views_open(self, arguments: Arguments) -> Answer:
        trigger = arguments.get("trigger_id", "")
        if (wrong := self._view(arguments.get("view"))) is not None:
            return wrong
        if (code := self.workspace.use_trigger(trigger)) is not None:
            return error_answer(code)
        return {"ok": True, "view": self.workspace.new_view(arguments["view"], self.workspace.triggers[trigger].user)}

    def views_push(self, arguments: Arguments) -> Answer:
        """Slack stacks at most three forms."""
        trigger = self.workspace.triggers.get(arguments.get("trigger_id", ""))
        if trigger and sum(v["user"] == trigger.user for v in self.workspace.views.values()) >= VIEW_STACK_MAX:
            return error_answer("push_limit_reached")
        return self.views_open(arguments)

    def views_update(self, arguments: Arguments) -> Answer:
        found = self.workspace.views.get(arguments.get("view_id", ""))
        if found is None:
            return error_answer("not_found")
        if arguments.get("hash") not in (None, found["hash"]):
            return error_answer("hash_conflict")
        if (wrong := self._view(arguments.get("view"))) is not None:
            return wrong
        fresh = self.workspace.new_view(arguments["view"], found["user"])
        del self.workspace.views[fresh["id"]]
        self.workspace.views[found["id"]] = {**fresh, "id": found["id"], "state": found["state"]}
        return {"ok": True, "view": self.workspace.views[found["id"]]}

    def views_publish(self, arguments: Arguments) -> Answer:
        if (wrong := self._view(arguments.get("view"))) is not None:
            return wrong
        self.workspace.homes[arguments["user_id"]] = arguments["view"]
        return {"ok": True, "view": {**arguments["view"], "app_id": APP}}
