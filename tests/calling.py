"""How each hook of the field is called."""


def call(hook, sender="new@example.com", recipient="b@example.net", client="192.0.2.1"):
    """Arguments and variables by which the hook is run; qmail-spp gives those of the first RCPT of a message."""
    if hook == "rcptcheck":
        return {"argv": [], "env": {"SENDER": sender, "RECIPIENT": recipient}}
    if hook == "spp":
        return {"argv": [], "env": {"SMTPMAILFROM": sender, "SMTPRCPTTO": recipient, "SMTPRCPTCOUNT": "0",
                                    "SMTPRCPTCOUNTALL": "1", "SMTPRCPTHOSTSOK": "1"}}
    if hook == "postgrey":
        return {"argv": ["127.0.0.1", sender, recipient, client, "unknown"], "env": {}}
    return {"argv": [sender, recipient], "env": {}}
