"""fastgrey.toml and conf.d: config check, show, describe, and apply, by the real commands and the real hook."""

import json
import re
from pathlib import Path

import pytest

import fastgrey
from fastgrey import policy, settings
from fastgrey.serve import options

ROOT = Path(__file__).resolve().parents[2]
RULES = """
delay = "10m"
allow_senders = [
    "friend@example.org",
    { file = "friends" },
]
deny_senders = ["*%*"]
"""


def in_force(path):
    with fastgrey.open(path) as store:
        return policy.in_force(store)


def test_apply_and_its_rules_in_the_hook(make_store, config, run_fastgrey, run_hook):
    make_store()
    main = config(RULES, friends="# friends\nexample.com  # all of them\n")
    done = run_fastgrey("apply")
    assert (done.returncode, done.stderr) == (0, "")
    assert "policy 1 is in force; 1 setting changed, 3 rules added, 0 rules removed" in done.stdout
    for sender, words, place in (
        ("friend@example.org", ["accept", "allowed"], f"{main}:4"),
        ("x@mail.example.com", ["accept", "allowed"], f"{main.parent}/friends:2"),
        ("a%b@example.com", ["reject", "denied"], f"{main}:7"),
    ):
        answer = run_hook(sender=sender)
        assert (answer.words, answer.status) == (words, 100 if words[0] == "reject" else 0)
        assert f" rule={place}\n" in answer.line
    stranger = run_hook(sender="x@example.org")
    assert stranger.words == ["defer", "new"]
    assert "wait=600" in stranger.line
    assert "rule=" not in stranger.line


def test_apply_says_what_changes(make_store, path, config, run_fastgrey):
    make_store()
    config(RULES, friends="a.example\n")
    before = (path / "passed.000001" / "data.mdb").read_bytes()
    dry = run_fastgrey("apply", "--dry-run")
    assert dry.returncode == 0
    assert {"-delay = 5m", "+delay = 10m", "+allow_senders: a.example", "+deny_senders: *%*"} <= set(
        dry.stdout.splitlines())
    assert (path / "passed.000001" / "data.mdb").read_bytes() == before
    assert in_force(path).number == 0
    run_fastgrey("apply")
    config(RULES.replace("10m", "5m"), friends="b.example\n")
    facts = json.loads(run_fastgrey("apply", "--json").stdout)
    assert facts["settings"] == {"delay": ["10m", "5m"]}
    assert (facts["added"], facts["removed"]) == (["allow_senders: b.example"], ["allow_senders: a.example"])
    assert (facts["changed"], facts["number"], in_force(path).number) == (True, 2, 2)
    again = run_fastgrey("apply")
    assert "nothing to change (policy 2" in again.stdout
    assert in_force(path).number == 2


def test_an_expression_means_the_same_in_any_locale(make_store, config, run_fastgrey, run_hook):
    """Bytes, as in the hook: in UTF-8 the one character would be matched by the one point."""
    make_store()
    config('deny_senders = ["/^.@example/", "/^\u00e9.*zz/"]')
    assert run_fastgrey("apply").returncode == 0
    for sender, action in (("\u00e9@example.org", "defer"), ("\u00e9\u00e9zz@a.example", "reject"),
                           ("e@example.org", "reject")):
        assert run_hook(sender=sender).words[0] == action
        checked = run_fastgrey("check", "192.0.2.1", sender, "b@example.net", "--dry-run", env={"LC_ALL": "C.UTF-8"})
        assert checked.stdout.startswith(f"{action} ")
        assert ("fastgrey.toml:1" in checked.stdout) is (action == "reject")


def test_no_rules_any_more(make_store, config, run_fastgrey, run_hook):
    make_store()
    config(RULES, friends="")
    run_fastgrey("apply")
    assert run_hook(sender="a%b@c").words == ["reject", "denied"]
    config("")
    assert "2 rules removed" in run_fastgrey("apply").stdout
    assert run_hook(sender="a%b@c").words == ["defer", "new"]


def test_drop_ins(make_store, config, run_fastgrey):
    make_store()
    config('delay = "1m"\nmode = "learn"\nopt_out = ["a.example"]', **{
        "conf.d/20-second.toml": 'delay = "3m"\nopt_out = ["c.example"]',
        "conf.d/10-first.toml": 'delay = "2m"\nopt_out = [{ file = "more" }]',
        "conf.d/more": "b.example", "conf.d/ignored.conf": "nonsense",
    })
    facts = json.loads(run_fastgrey("config", "show", "--json").stdout)
    assert [facts["settings"][name] for name in ("delay", "mode", "refresh")] == ["3m", "learn", "1d"]
    assert facts["origins"]["delay"].endswith("conf.d/20-second.toml:1")
    assert facts["origins"]["mode"].endswith("fastgrey.toml:2")
    assert "refresh" not in facts["origins"]
    assert [(rule["entry"], Path(rule["place"]).name) for rule in facts["rules"]] == [
        ("a.example", "fastgrey.toml:3"), ("b.example", "more:1"), ("c.example", "20-second.toml:2")]
    shown = run_fastgrey("config", "show").stdout
    assert "3m          " in shown and "default" in shown and "opt_out" in shown


BAD = [
    ('dellay = "5m"', 1, "dellay: no such option; did you mean delay?"),
    ("[rules]\nx = 1", 1, "rules: no such option; fastgrey config describe"),
    ("\nmode = 3", 2, "mode: expected enforce or learn; got int"),
    ('mode = "of"', 1, "mode: expected enforce or learn; invalid"),
    ('delay = "5y"', 1, "delay = '5y': expected a duration"),
    ("delay = 1.5", 1, "delay: expected a duration such as 300 (seconds), 5m, 2d or 1h30m; got float"),
    ('delay = "700d"', 1, "delay = '700d': out of range, expected 0s to 365d"),
    ("ipv4_prefix = 33", 1, "ipv4_prefix = '33': out of range, expected 0 to 32"),
    ('trust_client_name = "yes"', 1, "trust_client_name: expected true or false; got str"),
    ("\n\nx==1", 3, "no valid TOML"),
    ('delay = "5m"\ndelay = "6m"', 2, "no valid TOML"),
    ('delay = "5m', 1, "no valid TOML"),
    ('allow_clients = "192.0.2.1"', 1, 'allow_clients: expected an array of entries and of { file = "NAME" }; got str'),
    ('allow_clients = ["::1",\n 5]', 1, "allow_clients[1]: expected an array"),
    ('opt_in = [{ fil = "x" }]', 1, "opt_in[0]: expected an array"),
    ('opt_in = [{ file = "nowhere" }]', 1, "nowhere: opt_in: No such file or directory; name a file"),
    ('deny_clients = [\n  "192.0.2.1",\n  "192.0.2.1/33",\n]', 3, "deny_clients: '192.0.2.1/33': no IP address"),
    ('deny_senders = ["/(/"]', 1, "deny_senders: '/(/': bad regular expression: a '(' is never closed"),
    (r"deny_senders = ['/(a)\1/']", 1, "refers back"),
    ('deny_senders = ["/((a{1,99}){1,99}){1,99}/"]', 1, "larger than 250 positions"),
]


@pytest.mark.parametrize(("text", "line", "what"), BAD)
def test_refused_whole(make_store, path, config, run_fastgrey, text, line, what):
    make_store("delay=7m")
    config('deny_clients = ["192.0.2.9"]')
    run_fastgrey("apply")
    before = in_force(path)
    file = config(f"{text}\n")
    for command in (("config", "check"), ("apply",), ("apply", "--dry-run")):
        done = run_fastgrey(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"fastgrey: {file}:{line}: ")
        assert what in done.stderr
        assert done.stderr.count("\n") == 1
    assert in_force(path) == before


def test_refused_in_a_rule_file(make_store, config, run_fastgrey):
    make_store()
    main = config('opt_out = [{ file = "list" }]', list="# fine\na.example\nuser name@x\n")
    done = run_fastgrey("apply")
    assert done.returncode == 1
    assert done.stderr.startswith(f"fastgrey: {main.parent}/list:3: opt_out: 'user name@x': it holds white space")


def test_refused_in_a_drop_in(make_store, config, run_fastgrey):
    make_store()
    main = config("", **{"conf.d/x.toml": "\nnonsense = 1"})
    done = run_fastgrey("config", "check")
    assert done.returncode == 1
    assert done.stderr.startswith(f"fastgrey: {main.parent}/conf.d/x.toml:2: nonsense: no such option")


def test_no_configuration(make_store, tmp_path, run_fastgrey):
    make_store()
    done = run_fastgrey("apply")
    assert done.returncode == 1
    assert (f"{tmp_path}/etc/fastgrey.toml: No such file or directory; make one with: fastgrey config describe --toml"
            in done.stderr)
    (tmp_path / "binary.toml").write_bytes(b"# \xff\n")
    done = run_fastgrey("config", "check", "--config", str(tmp_path / "binary.toml"))
    assert (done.returncode, done.stderr) == (1, f"fastgrey: {tmp_path}/binary.toml:1: not UTF-8; TOML is\n")


def test_check_says_doubts_and_passes(config, run_fastgrey):
    config('refresh = "40d"\nopt_out = ["a.example", "b.example",\n"A.example"]')
    done = run_fastgrey("config", "check")
    assert done.returncode == 0
    assert "good; 1 file, 1 setting, 3 rules" in done.stdout
    assert "refresh is not shorter than lifetime" in done.stderr
    assert "fastgrey.toml:3: opt_out: 'A.example' stands in" in done.stderr
    assert len(json.loads(run_fastgrey("config", "check", "--json").stdout)["doubts"]) == 2


def test_settings_of_an_applied_policy_are_changed_in_the_configuration(make_store, config, run_fastgrey):
    make_store()
    assert run_fastgrey("init", "--set", "delay=9m").returncode == 0
    main = config('delay = "8m"')
    run_fastgrey("apply")
    done = run_fastgrey("init", "--set", "delay=9m")
    assert done.returncode == 2
    assert f"come from {main}; change them there, then: fastgrey apply" in done.stderr


def test_describe(run_fastgrey):
    rows = {row["name"]: row for row in json.loads(run_fastgrey("config", "describe", "--json").stdout)}
    assert list(rows) == [*settings.BY_NAME, "deny_clients", "deny_senders", "deny_recipients", "allow_clients",
                          "allow_senders", "allow_recipients", "opt_out", "opt_in",
                          *(f"serve.{name}" for name in options.BY_NAME)]
    assert rows["delay"] == {"name": "delay", "type": "duration", "unit": "seconds, or with s m h d w", "default": "5m",
                             "allowed": "0s to 365d", "meaning": "a triplet younger than this is deferred",
                             "source": "RFC 6647 section 5(2): 1 minute to 24 hours"}
    text = run_fastgrey("config", "describe").stdout
    for row in rows.values():
        assert f"{row['name']} = {row['default']}\n    {row['meaning']}\n" in text
        assert row["source"] and row["meaning"] and row["allowed"]


@pytest.mark.parametrize("comment", ["#", ""])
def test_the_configuration_to_begin_with(config, run_fastgrey, comment):
    """As it is, and with every comment mark taken from in front of an option."""
    text = run_fastgrey("config", "describe", "--toml").stdout
    config(re.sub(r"^#(?=\w+ = )", comment, text, flags=re.MULTILINE))
    facts = json.loads(run_fastgrey("config", "show", "--json").stdout)
    assert facts["settings"] == settings.show(settings.defaults())
    assert facts["serve"] == options.Options().shown()
    assert len(facts["origins"]) == (0 if comment else len(settings.SETTINGS) + len(options.OPTIONS))


def test_the_server_has_a_table_of_its_own(config, run_fastgrey, make_store):
    make_store()
    config('delay = "6m"\n[serve]\nlisten = ["unix:/run/a"]\nidle = "5m"\nlog = "json"\nfirst_recipient = true\n',
           **{"conf.d/b.toml": '[serve]\nlisten = ["tcp:[::1]:10045"]\nidle = 60\n'})
    facts = json.loads(run_fastgrey("config", "show", "--json").stdout)
    assert facts["serve"] == options.Options().shown() | {
        "listen": "unix:/run/a, tcp:[::1]:10045", "idle": "1m", "log": "json", "first_recipient": "true"}
    assert facts["origins"]["serve.log"].endswith("/fastgrey.toml:5")
    assert facts["origins"]["serve.idle"].endswith("/conf.d/b.toml:3")
    done = run_fastgrey("apply", "--json")
    assert json.loads(done.stdout)["settings"] == {"delay": ["5m", "6m"]}


@pytest.mark.parametrize(("line", "said"), [
    ("lisen = []", "serve.lisen: no such option; did you mean listen?"),
    ("nonsense = 1", "serve.nonsense: no such option; fastgrey config describe lists them"),
    ("listen = 'unix:/a'", "listen: expected an array of texts; got str"),
    ("listen = ['unix:/a', 7]", "listen[...]: expected an array of texts; got int"),
    ("listen = ['tcp:host:99999']", "serve.listen: 'tcp:host:99999': no address to listen on"),
    ("idle = true", "idle: expected a duration: 1s to 365d; got bool"),
    ("workers = 257", "serve.workers = '257': out of range, expected 0 to 256"),
    ("max_connections = 0", "serve.max_connections = '0': out of range, expected 1 to 1000000"),
    ("log = 'xml'", "serve.log = 'xml': expected text or json"),
    ("defer_text = ''", "serve.defer_text = '': expected 1 to 400 printable ASCII characters"),
    ("defer_text = 'caf\u00e9'", "expected 1 to 400 printable ASCII characters"),
    ('reject_text = "a\\r\\n250 ok"', "expected 1 to 400 printable ASCII characters"),
    ("trace = 'X Grey'", "serve.trace = 'X Grey': expected a header name, or empty"),
    ("metrics = '9100'", "serve.metrics = '9100': expected HOST:PORT, or empty"),
    ("engine = 'localhost'", "serve.engine = 'localhost': expected valkey://"),
    ("name = 'a b'", "serve.name = 'a b': expected 1 to 40 of a-z, 0-9 and _"),
    # No engine takes such a one.
    ("name = 'MX-1'", "serve.name = 'MX-1': expected 1 to 40 of a-z, 0-9 and _"),
])
def test_what_is_wrong_in_the_servers_table(config, run_fastgrey, line, said):
    name = config(f"[serve]\n\n{line}\n")
    done = run_fastgrey("config", "check")
    assert done.returncode == 1
    assert done.stderr.startswith(f"fastgrey: {name}:3: "), done.stderr
    before, _, after = said.partition("[...]")
    assert before in done.stderr and after in done.stderr


def test_the_servers_table_is_a_table(config, run_fastgrey):
    name = config("serve = 3\n")
    assert run_fastgrey("config", "check").stderr == (
        f"fastgrey: {name}:1: serve: expected a table, as in: [serve]; got int\n")


def test_the_reference_is_not_stale(run_fastgrey):
    page = run_fastgrey("config", "describe", "--markdown").stdout
    assert (ROOT / "docs" / "configuration.md").read_text() == page, "fastgrey config describe --markdown makes it anew"


@pytest.fixture
def postgrey(debian_package):
    """The lists of postgrey, as Debian has them."""
    return debian_package("postgrey") / "usr" / "share" / "postgrey"


def test_postgrey_lists_load_unchanged(make_store, config, run_fastgrey, run_hook, postgrey):
    make_store()
    config(f"""
trust_client_name = true
allow_clients = [{{ file = "{postgrey}/whitelist_clients" }}]
allow_recipients = [{{ file = "{postgrey}/whitelist_recipients" }}]
""")
    entries = [line for name in ("whitelist_clients", "whitelist_recipients")
               for line in (postgrey / name).read_text().splitlines() if line.partition("#")[0].strip()]
    assert len(entries) > 100
    assert f"{len(entries)} rules added" in run_fastgrey("apply").stdout
    for host, client, recipient, passes in (
        ("mail12.telekom.de", "192.0.2.1", "b@example.net", True),      # a regular expression
        ("Mailgw.x.iai.co.il", "192.0.2.1", "b@example.net", True),
        ("mailx.telekom.de", "192.0.2.1", "b@example.net", False),
        ("mx1.gov.uk", "192.0.2.1", "b@example.net", False),
        ("unknown", "205.201.130.7", "b@example.net", True),           # a network
        ("unknown", "2a01:4180:4050:800::9", "b@example.net", True),
        ("unknown", "192.0.2.1", "Postmaster@example.net", True),
        ("unknown", "192.0.2.1", "abuse+x@example.net", True),
        ("unknown", "192.0.2.1", "sabuse@example.net", False),
    ):
        answer = run_hook(client=client, recipient=recipient, env={"TCPREMOTEHOST": host})
        assert (answer.words == ["accept", "allowed"]) is passes, (host, client, recipient, answer.line)
        assert answer.status == (0 if passes else 111)


def test_replay_with_a_configuration(config, run_fastgrey, tmp_path):
    main = config('delay = "1m"\ndeny_senders = ["*%*"]\nopt_out = ["b.example"]')
    envelopes = tmp_path / "envelopes.tsv"
    rows = [("1000", "192.0.2.1", "", sender, recipient, "") for sender, recipient in (
        ("a%b@c.example", "x@a.example"), ("a@c.example", "x@b.example"), ("a@c.example", "x@a.example"))]
    header = ("time", "client_ip", "client_name", "sender", "recipient", "label")
    envelopes.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))
    done = run_fastgrey("replay", str(envelopes), "--jsonl", "--config", str(main))
    assert [(row["reason"], row["wait"]) for row in map(json.loads, done.stdout.splitlines())] == [
        ("denied", 0), ("opted-out", 0), ("new", 60)]
    both = run_fastgrey("replay", str(envelopes), "--config", str(main), "--set", "delay=2m", "--jsonl")
    assert json.loads(both.stdout.splitlines()[-1])["wait"] == 120


def test_a_store_that_cannot_be_written(make_store, path, config, run_fastgrey):
    make_store()
    config(RULES, friends="")
    (path / "hits.1").mkdir()
    done = run_fastgrey("apply")
    assert (done.returncode, done.stderr) == (
        1, f"fastgrey: cannot write {path}/hits.1: Is a directory; the policy in force stays\n")
    assert in_force(path).number == 0
