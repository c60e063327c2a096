"""``check``: the rights of the bot, what the server ends by itself, and what users of each level could leave behind."""
