//! Every refusal with exit code 4 prints what to do. These tests do it, word by word, and the next run passes.

use crate::project::{Project, Ran, rawmart};
use crate::small::{self, Batch, Bucket, FIRST, SECOND, THIRD};

/// The commands in the message of a refusal, without the name of the program.
fn commands(refused: &Ran) -> Vec<Vec<String>> {
    let quoted = refused.err.split('`').skip(1).step_by(2);
    let commands = quoted.filter_map(|text| text.strip_prefix("rawmart "));
    let words = |command: &str| command.split_whitespace().map(str::to_owned).collect();
    commands.map(words).collect()
}

/// Runs the one command in the message of a refusal.
fn follow(project: &Project, refused: &Ran) {
    let commands = commands(refused);
    let [command] = commands.as_slice() else {
        panic!("{refused:?}");
    };
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    project.rawmart(&command).expect(0, &[]);
}

/// The next run passes, and the lake is whole.
fn passes(project: &Project) {
    project.rawmart(&["run"]).expect(0, &[]);
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
    project.rawmart(&["verify"]).expect(0, &[]);
}

fn toml(project: &Project) -> String {
    std::fs::read_to_string(project.path("rawmart.toml")).unwrap()
}

/// A project that has published the batches, with another configuration since.
fn reconfigured(batches: &[Batch], change: impl Fn(&str) -> String) -> Project {
    let project = small::on_disk(batches);
    project.rawmart(&["run"]).expect(0, &[]);
    let now = change(&toml(&project));
    assert_ne!(now, toml(&project), "the change changes nothing");
    project.write("rawmart.toml", now);
    project
}

/// The rules that the message of a refusal names.
fn rules_of(refused: &Ran) -> String {
    let at = refused
        .err
        .find("[[sources.")
        .unwrap_or_else(|| panic!("{refused:?}"));
    refused.err[at..].to_owned()
}

/// The configuration with other rules.
fn with_rules(toml: &str, rules: &str) -> String {
    let (source, tail) = toml.split_once("[marts]").unwrap();
    let head = source.split("[[sources.app.dedup]]").next().unwrap();
    format!("{head}{rules}\n[marts]{tail}")
}

/// A rule of the small project.
const REDELIVERY: &str =
    "[[sources.app.dedup]]\nname = \"redelivery\"\nkey = [\"id\"]\nwithin = \"10m\"\n";
const DOUBLE_CLICK: &str =
    "[[sources.app.dedup]]\nname = \"double_click\"\nkey = [\"who\"]\nwithin = \"10s\"\n";

/// Rules that are changed, new, gone, or in another order.
fn changes_of_rules() -> Vec<String> {
    let shorter = DOUBLE_CLICK.replace("10s", "2s");
    let other = DOUBLE_CLICK
        .replace("double_click", "other")
        .replace("who", "id");
    vec![
        [REDELIVERY, &shorter].concat(),
        [&REDELIVERY.replace("10m", "5m"), &shorter]
            .map(String::as_str)
            .concat(),
        [REDELIVERY, DOUBLE_CLICK, &other].concat(),
        [&other, REDELIVERY, &shorter].concat(),
        REDELIVERY.to_owned(),
        String::new(),
        [DOUBLE_CLICK, REDELIVERY].concat(),
        [
            REDELIVERY,
            &format!("{DOUBLE_CLICK}mode = \"gap-last\"\nsince = \"2024-03-01\"\n"),
        ]
        .concat(),
    ]
}

#[test]
fn the_rebuild_for_changed_rules_makes_the_next_run_pass() {
    for rules in changes_of_rules() {
        let project = reconfigured(&[FIRST, SECOND], |toml| with_rules(toml, &rules));
        let refused = project.rawmart(&["run"]);
        refused.expect(4, &["the earlier settings"]);
        follow(&project, &refused);
        passes(&project);
        let fresh = small::on_disk(&[FIRST, SECOND]);
        fresh.write("rawmart.toml", toml(&project));
        fresh.rawmart(&["run"]).expect(0, &[]);
        small::assert_whole(&project.lake(), &small::content(&fresh.lake()), &rules);
    }
}

/// Events of published dates stay as the earlier rules decided them, also late ones; later events are decided by
/// the rules as they are now.
#[test]
fn the_rules_that_are_printed_keep_published_dates_as_they_are() {
    for rules in changes_of_rules() {
        let project = reconfigured(&[FIRST, SECOND], |toml| with_rules(toml, &rules));
        let before = project.lake();
        let refused = project.rawmart(&["run"]);
        refused.expect(
            4,
            &["To keep these dates as they are, replace all rules of app"],
        );
        let printed = rules_of(&refused);
        project.write("rawmart.toml", with_rules(&toml(&project), &printed));
        let passed = project.rawmart(&["run"]);
        passed.expect(0, &[]);
        assert!(project.lake().content() == before.content(), "{printed}");
        small::add(&project, THIRD);
        passes(&project);
        let fresh = small::on_disk(&[FIRST, SECOND, THIRD]);
        fresh.write("rawmart.toml", toml(&project));
        fresh.rawmart(&["run"]).expect(0, &[]);
        small::assert_whole(&project.lake(), &small::content(&fresh.lake()), &printed);
    }
}

#[test]
fn the_rebuild_for_changed_columns_makes_the_next_run_pass() {
    for (from, to) in [
        (
            "who = \"string\"",
            "who = { type = \"string\", path = \"id\" }",
        ),
        ("id = \"string\"", "id = \"json\""),
        ("timezone = \"Asia/Seoul\"", "timezone = \"UTC\""),
        (
            "[sources.app]\n",
            "[sources.app]\npartition_by = \"hour\"\n",
        ),
        (
            "[sources.app]\n",
            "[sources.app]\non_type_error = \"null\"\n",
        ),
        (
            "who = \"string\"",
            "who = \"string\"\nnew = { type = \"string\", default = \"none\" }",
        ),
    ] {
        let project = reconfigured(&[FIRST, SECOND], |toml| toml.replacen(from, to, 1));
        let refused = project.rawmart(&["run"]);
        refused.expect(4, &["the earlier settings", "of raw objects"]);
        let planned = project.rawmart(&["plan", "--exit-code"]);
        planned.expect(4, &["the run will refuse", "the earlier settings"]);
        follow(&project, &refused);
        passes(&project);
    }
}

#[test]
fn a_rebuild_of_all_dates_passes_where_one_of_some_dates_is_refused() {
    let utc = |toml: &str| toml.replace("Asia/Seoul", "UTC");
    let project = reconfigured(&[FIRST], utc);
    let dates = ["--from", "2024-03-01", "--to", "2024-03-01"];
    let refused = project.rawmart(&[&["rebuild"], &dates[..]].concat());
    refused.expect(4, &["leave out --from and --to"]);
    project.rawmart(&["rebuild"]).expect(0, &[]);
    passes(&project);
}

const CORRECTED: Batch = &[(FIRST[0].0, SECOND[0].1)];

#[test]
fn each_remedy_for_a_changed_raw_object_makes_the_next_run_pass() {
    let changed = || {
        let project = small::on_disk(&[FIRST]);
        project.rawmart(&["run"]).expect(0, &[]);
        small::add(&project, CORRECTED);
        project
    };
    for refused in [&["run"][..], &["rebuild", "--raw"]] {
        let project = changed();
        let refused = project.rawmart(refused);
        refused.expect(
            4,
            &["1 raw objects that were absorbed have other content now"],
        );
        follow(&project, &refused);
        passes(&project);
        project.rawmart(&["rebuild", "--raw"]).expect(0, &[]);
    }
    for on_changed in ["replace", "ignore"] {
        let project = changed();
        let set = format!("[sources.app]\non_changed_object = \"{on_changed}\"\n");
        project.write(
            "rawmart.toml",
            toml(&project).replace("[sources.app]\n", &set),
        );
        passes(&project);
    }
    let restored = changed();
    small::add(&restored, FIRST);
    passes(&restored);
}

#[test]
fn each_remedy_for_vanished_raw_objects_makes_the_next_run_pass() {
    let vanished = || {
        let bucket = Bucket::new();
        bucket.add(FIRST);
        let run = |args: &[&str]| rawmart(&bucket.project.path(""), args, &bucket.server.env());
        run(&["run"]).expect(0, &[]);
        for (key, _) in FIRST {
            bucket.server.remove("raw", &format!("app/{key}"));
        }
        let refused = run(&["run"]);
        refused.expect(4, &["3 raw objects that were absorbed are gone"]);
        (bucket, refused)
    };
    let (bucket, refused) = vanished();
    let run = |args: &[&str]| rawmart(&bucket.project.path(""), args, &bucket.server.env());
    let commands = commands(&refused);
    let command: Vec<&str> = commands[0].iter().map(String::as_str).collect();
    run(&command).expect(0, &[]);
    run(&["run"]).expect(0, &[]);
    run(&["verify"]).expect(0, &[]);
    bucket.add(SECOND);
    run(&["run"]).expect(0, &["3 new"]);
    small::assert_whole(&bucket.lake(), &small::expected(&[SECOND]), "given up");

    let (bucket, _) = vanished();
    bucket.add(FIRST);
    bucket.recovers(&small::expected(&[FIRST]), "restored");

    // A rebuild that needs an object that is gone.
    let project = small::on_disk(&[FIRST]);
    project.rawmart(&["run"]).expect(0, &[]);
    std::fs::remove_file(project.path("raw").join(FIRST[1].0)).unwrap();
    let refused = project.rawmart(&["rebuild", "--raw"]);
    refused.expect(4, &["1 raw objects that were absorbed are gone"]);
    follow(&project, &refused);
    passes(&project);
}

#[test]
fn each_remedy_for_too_many_rejects_makes_the_next_run_pass() {
    let strict = |toml: String| toml.replace("max_rejects = \"100%\"", "max_rejects = \"1%\"");
    let rejected = || {
        let project = small::on_disk(&[FIRST]);
        project.write("rawmart.toml", strict(toml(&project)));
        project.write("raw/2024/03/01/16/bad.json", "no JSON\n".repeat(2_000));
        project
    };
    let project = rejected();
    let refused = project.rawmart(&["run"]);
    refused.expect(4, &["repeat the command with `--max-rejects 100%`"]);
    project
        .rawmart(&["run", "--max-rejects", "100%"])
        .expect(0, &[]);
    passes(&project);
    let again = project.rawmart(&["rebuild", "--raw"]);
    again.expect(4, &["repeat the command with `--max-rejects 100%`"]);
    project
        .rawmart(&["rebuild", "--raw", "--max-rejects", "100%"])
        .expect(0, &[]);
    passes(&project);

    // An object of another kind is one record, and all of its bytes are lost.
    let lost = rejected();
    let parquet = format!("PAR1{}PAR1", "x".repeat(20_000));
    lost.write("raw/2024/03/01/16/bad.json", parquet);
    let refused = lost.rawmart(&["run"]);
    refused.expect(
        4,
        &[
            "sources.app.exclude",
            "repeat the command with `--max-rejects 100%`",
        ],
    );
    let exclude = "[sources.app]\nexclude = [\"**/bad.json\"]\n";
    lost.write(
        "rawmart.toml",
        toml(&lost).replace("[sources.app]\n", exclude),
    );
    lost.rawmart(&["run"]).expect(0, &[]);
}

#[test]
fn a_rule_that_fails_on_a_value_passes_with_nullif() {
    let project = small::on_disk(&[FIRST]);
    project.write(
        "raw/2024/03/01/16/n.json",
        "{\"id\":\"n1\",\"time\":\"2024-03-01T15:30:00Z\",\"n\":0}\n",
    );
    let with = |key: &str| {
        let toml = toml(&project);
        let toml = toml.replace("who = \"string\"", "who = \"string\"\nn = \"bigint\"");
        let rule = format!(
            "[[sources.app.dedup]]\nname = \"ratio\"\nkey = [\"{key}\"]\nwithin = \"1s\"\n"
        );
        toml.replace("[marts]", &format!("{rule}\n[marts]"))
    };
    let (fails, passes_on) = (with("10 / n"), with("10 / nullif(n, 0)"));
    project.write("rawmart.toml", fails);
    project
        .rawmart(&["run"])
        .expect(4, &["ivide by zero", "`nullif`"]);
    project.write("rawmart.toml", passes_on);
    passes(&project);
}

#[test]
fn objects_with_keys_that_cannot_be_asked_for_pass_when_excluded() {
    let bucket = Bucket::new();
    bucket.add(FIRST);
    let run = |args: &[&str]| rawmart(&bucket.project.path(""), args, &bucket.server.env());
    bucket
        .server
        .put("raw", "app/2024/03/01/14/new\nline", FIRST[0].1);
    run(&["run"]).expect(4, &["1 objects", "sources.app.exclude"]);
    let exclude = "[sources.app]\nexclude = [\"**/new\\nline\"]\n";
    let toml = toml(&bucket.project).replace("[sources.app]\n", exclude);
    bucket.project.write("rawmart.toml", toml);
    run(&["run"]).expect(0, &["Published commit"]);
}
