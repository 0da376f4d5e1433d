"""The configuration reference, as a page and as a file to begin with, from the definitions that validate."""

from . import configuration

PAGE = r"""# Configuration

Written by `fastgrey config describe --markdown`.

The main file is `/etc/fastgrey/fastgrey.toml`, or what `--config` or FASTGREY_CONFIG names. The files `conf.d/*.toml`
beside it are read after it in the order of their names: a setting given again replaces the one before, lists add up.
Nothing is in force until `fastgrey apply`, which checks everything first and refuses the whole where anything is wrong.

    delay = "10m"
    trust_client_name = true
    deny_senders = ["*%*"]
    allow_clients = ["192.0.2.0/24", { file = "whitelist_clients" }]

## Settings

| option | type | unit | default | allowed | meaning | source |
| --- | --- | --- | --- | --- | --- | --- |
@SETTINGS@

## Rule lists

Deny beats allow, allow beats opting out. An array holds entries and files of entries, `{ file = "NAME" }`, relative to
the file that names them. In a file there is one entry a line, and what follows `#` is comment; postgrey's
`whitelist_clients` and `whitelist_recipients` can be used as they are.

| list | meaning |
| --- | --- |
@LISTS@

| entry for clients | covers |
| --- | --- |
| `192.0.2.7`, `2001:db8::7` | that address |
| `192.0.2.0/24`, `2001:db8::/32` | that network |
| `10.20` | 10.20.0.0/16: whole octets |
| `mail.example.org` | that host name and all names below it, where the client name is trusted |
| `/regex/` | client names in which it is found, where the client name is trusted |

| entry for senders and recipients | covers |
| --- | --- |
| `user@example.org` | that address, and `user+extension@example.org` |
| `user@` | that user of any domain |
| `example.org`, `@example.org` | that domain and all below it |
| `*%*` | addresses of that form as a whole; `*` stands for anything or nothing |
| `/regex/` | addresses in which it is found |

Upper and lower case are the same. Senders are compared as they were written, not as they are keyed: an entry may name
`bounce-4711@example.org`. Names and addresses that are not trusted, or are longer than 1,000 bytes, match nothing.

Regular expressions are POSIX extended. Of Perl's notation `\d \w \s \D \W \S \b \B`, `(?:...)`, lazy repetitions and
quoting in brackets are understood. Refused are references back, repetitions of what may be empty (`(a*)*`), and what
comes to more than 250 positions with its repetitions written out: an expression takes microseconds, and a tenth of
a second at worst. The hook gives half a second of processor time to all of them, then it answers as `on_error` says and
names the rule. Entries and files may be as many as you like; expressions are tried one by one, all others are looked
up.

## The server

What `fastgrey serve` is told stands in a table of its own, after all of the above. It is not part of the policy:
`fastgrey apply` checks it and leaves it alone, the server reads it when it starts and at SIGHUP.

    [serve]
    listen = ["unix:/var/spool/postfix/fastgrey/policy"]

| option of `[serve]` | type | unit | default | allowed | meaning | source |
| --- | --- | --- | --- | --- | --- | --- |
@SERVE@
"""


def page() -> str:
    """The reference, in Markdown."""
    rows = configuration.describe()
    settings = _table([row for row in rows if row["type"] != "list"])
    serve = _table(configuration.describe_serve()).replace("`serve.", "`")
    lists = "\n".join(f"| `{row['name']}` | {row['meaning']} |" for row in rows if row["type"] == "list")
    return PAGE.replace("@SETTINGS@", settings).replace("@LISTS@", lists).replace("@SERVE@", serve)


def _table(rows: list[dict[str, str]]) -> str:
    columns = ("type", "unit", "default", "allowed", "meaning", "source")
    return "\n".join(f"| `{row['name']}` | {' | '.join(row[column] for column in columns)} |" for row in rows)


def template() -> str:
    """A configuration in which every option stands with its default, as a comment."""
    lines = ["# fastgrey.toml. What is commented out is the default; put it in force with: fastgrey apply", ""]
    for row in configuration.describe():
        lines += _commented(row)
    # A table takes all that follows it.
    lines += ["[serve]", ""]
    for row in configuration.describe_serve():
        lines += _commented(row | {"name": row["name"].removeprefix("serve.")})
    return "\n".join(lines)


def _commented(row: dict[str, str]) -> list[str]:
    value = row["default"] if row["type"] in ("list", "flag", "count") else f'"{row["default"]}"'
    return [f"# {row['meaning']}", f"#   {row['allowed']}" + (f"; {row['unit']}" if row["unit"] else ""),
            f"#{row['name']} = {value}", ""]
