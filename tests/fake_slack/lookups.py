"""Web API methods for the workspace, groups, addresses, links and deleted messages."""

from __future__ import annotations

from typing import Any

from tests.fake_slack.workspace import BOT_USER, TEAM, Workspace

Arguments = dict[str, Any]
Answer = dict[str, Any]


class Lookups:
    """``methods`` has the scope and the function of each method."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.methods = {
            "team.info": ("team:read", self.team_info),
            "users.lookupByEmail": ("users:read.email", self.by_email),
            "usergroups.list": ("usergroups:read", self.groups),
            "usergroups.users.list": ("usergroups:read", self.group_members),
            "chat.getPermalink": (None, self.permalink),
            "chat.delete": ("chat:write", self.delete),
        }

    def team_info(self, _arguments: Arguments) -> Answer:
        return {"ok": True, "team": {"id": TEAM, "name": "Strict", "domain": "strict"}}

    def by_email(self, arguments: Arguments) -> Answer:
        """Slack does not find bots and people of other organisations by their address."""
        for user in self.workspace.users.values():
            is_known = user["team_id"] == TEAM and not user["deleted"] and not user["is_bot"]
            if is_known and user["profile"]["email"] == arguments.get("email"):
                return {"ok": True, "user": user}
        return {"ok": False, "error": "users_not_found"}

    def groups(self, arguments: Arguments) -> Answer:
        """Disabled groups and members are included only if the arguments request them."""
        with_users, disabled = (arguments.get(k) in ("true", True) for k in ("include_users", "include_disabled"))
        shown = [group for group in self.workspace.groups.values() if disabled or not group["date_delete"]]
        hidden = () if with_users else ("users",)
        return {"ok": True, "usergroups": [{k: v for k, v in g.items() if k not in hidden} for g in shown]}

    def group_members(self, arguments: Arguments) -> Answer:
        group = self.workspace.groups.get(arguments.get("usergroup", ""))
        return {"ok": True, "users": group["users"]} if group else {"ok": False, "error": "no_such_subteam"}

    def permalink(self, arguments: Arguments) -> Answer:
        channel, ts = arguments.get("channel", ""), arguments.get("message_ts", "")
        if ts not in self.workspace.messages.get(channel, {}):
            return {"ok": False, "error": "message_not_found"}
        return {"ok": True, "permalink": f"https://strict.slack.com/archives/{channel}/p{ts.replace('.', '')}"}

    def delete(self, arguments: Arguments) -> Answer:
        messages = self.workspace.messages.get(arguments.get("channel", ""))
        if messages is None:
            return {"ok": False, "error": "channel_not_found"}
        message = messages.get(arguments.get("ts", ""))
        if message is None:
            return {"ok": False, "error": "message_not_found"}
        if message["user"] != BOT_USER:
            return {"ok": False, "error": "cant_delete_message"}
        del messages[message["ts"]]
        return {"ok": True, "channel": arguments["channel"], "ts": message["ts"]}
