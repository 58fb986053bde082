//! The Glue catalog follows the lake: what it holds after each commit, after each failure, and after two runs at once.

use std::collections::BTreeMap;
use std::time::Duration;

use rawmart::report::Exit;
use rawmart::run::RunSummary;
use rawmart::store::StoreSettings;
use serde_json::Value;

use crate::fake_glue::{Database, FakeGlue, Fault};
use crate::project::{Project, Ran, rawmart};
use crate::s3::{SECRET_KEY, WRITERS};
use crate::small::{Batch, Bucket, FIRST, SECOND, exit, job, run};

/// A lake in a bucket, and a catalog.
pub struct Told {
    pub bucket: Bucket,
    pub glue: FakeGlue,
}

impl Told {
    fn new() -> Self {
        Self::of(Bucket::new())
    }

    /// A catalog without tables, and a lake in this bucket.
    pub fn of(bucket: Bucket) -> Self {
        let told = Self {
            bucket,
            glue: FakeGlue::start(),
        };
        told.configure(|toml| toml);
        told
    }

    fn after(batches: &[Batch]) -> Self {
        let told = Self::new();
        for batch in batches {
            told.bucket.add(batch);
            told.tells();
        }
        told
    }

    /// Changes the configuration.
    pub fn configure(&self, change: impl FnOnce(String) -> String) {
        let project = &self.bucket.project;
        let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
        let mut toml = change(toml);
        if !toml.contains("[catalog]") {
            let endpoint = &self.glue.endpoint;
            toml += &format!("\n[catalog]\ntype = \"glue\"\nendpoint = \"{endpoint}\"\n");
        }
        project.write("rawmart.toml", toml);
    }

    pub fn store(&self) -> StoreSettings {
        self.bucket.store(WRITERS[0], 4)
    }

    fn run_with(&self, store: StoreSettings) -> (Exit, RunSummary) {
        let summary = run(&job(&self.bucket.project), "run", store).unwrap();
        (exit(Ok(summary.clone())).0, summary)
    }

    fn run(&self) -> (Exit, RunSummary) {
        self.run_with(self.store())
    }

    /// A run tells the catalog all there is.
    pub fn tells(&self) -> RunSummary {
        let (exit, summary) = self.run();
        assert_eq!(exit, Exit::Done, "{summary:?}");
        self.assert_told("after a run");
        summary
    }

    pub fn rawmart(&self, args: &[&str]) -> Ran {
        rawmart(
            &self.bucket.project.path(""),
            args,
            &self.bucket.server.env(),
        )
    }

    /// The catalog says of each table of the lake what the log says.
    pub fn assert_told(&self, when: &str) {
        assert_told(
            &self.bucket.project,
            &self.bucket.server.env(),
            &self.glue.database(),
            when,
        );
    }
}

fn assert_told(project: &Project, env: &[(String, String)], database: &Database, when: &str) {
    let tables = rawmart(&project.path(""), &["tables", "--output", "json"], env);
    let tables = tables.json();
    let tables = tables["tables"].as_array().unwrap();
    let names: Vec<&str> = tables.iter().map(|t| t["name"].as_str().unwrap()).collect();
    let told: Vec<&String> = database.tables.keys().collect();
    assert_eq!(told, names, "{when}");
    let forms = |columns: &Value| -> Vec<(Value, Value)> {
        let columns = columns.as_array().unwrap().iter();
        columns
            .map(|column| {
                // The log's names of members are lower-case, Glue's are not.
                let of =
                    |name: &str, other: &str| column.get(name).unwrap_or(&column[other]).clone();
                (of("name", "Name"), of("type", "Type"))
            })
            .collect()
    };
    for table in tables {
        let name = table["name"].as_str().unwrap();
        let told = &database.tables[name];
        let (input, storage) = (&told.input, &told.input["StorageDescriptor"]);
        assert_eq!(
            forms(&storage["Columns"]),
            forms(&table["columns"]),
            "{name}, {when}"
        );
        let keys = (
            forms(&input["PartitionKeys"]),
            forms(&table["partition_columns"]),
        );
        assert_eq!(keys.0, keys.1, "{name}, {when}");
        assert_eq!(storage["Location"], table["location"], "{name}, {when}");
        let commit = table["last_commit"].to_string();
        assert_eq!(
            input["Parameters"]["rawmart.commit"], commit,
            "{name}, {when}"
        );
        let partitions = table["partitions"].as_array().unwrap().iter();
        let partitions = partitions.filter(|_| !keys.1.is_empty()).map(|partition| {
            let values = partition["values"].as_array().unwrap().iter();
            let values = values.map(|v| v.as_str().unwrap_or("__HIVE_DEFAULT_PARTITION__"));
            let location = partition["location"].as_str().unwrap().to_owned();
            (
                values.map(str::to_owned).collect(),
                (location, forms(&table["columns"])),
            )
        });
        let partitions: BTreeMap<Vec<String>, _> = partitions.collect();
        let found = told.partitions.iter().map(|(values, partition)| {
            let storage = &partition["StorageDescriptor"];
            let location = storage["Location"].as_str().unwrap().to_owned();
            (values.clone(), (location, forms(&storage["Columns"])))
        });
        assert_eq!(
            found.collect::<BTreeMap<_, _>>(),
            partitions,
            "{name}, {when}"
        );
    }
}

#[test]
fn the_catalog_follows_each_commit() {
    let told = Told::new();
    told.bucket.add(FIRST);
    let plan = told.rawmart(&["plan"]);
    plan.expect(0, &["catalog rawmart: up to date"]);
    assert_eq!(
        told.glue.operations(),
        Vec::<String>::new(),
        "nothing is published yet"
    );
    let first = told.tells().catalog.unwrap();
    assert_eq!((first.tables, first.problems.len()), (6, 0));
    told.glue.take_log();

    // Only what a commit changes is told.
    told.bucket.add(SECOND);
    told.tells();
    let log = told.glue.take_log();
    for (operation, input) in &log {
        let quiet = [
            "GetTables",
            "BatchGetPartition",
            "BatchCreatePartition",
            "UpdateTable",
        ];
        assert!(quiet.contains(&operation.as_str()), "{operation} {input}");
    }
    let created = log
        .iter()
        .filter(|(operation, _)| operation == "BatchCreatePartition");
    let created = created.map(|(_, input)| input["PartitionInputList"].to_string());
    let created = created.collect::<String>();
    assert!(created.contains("dt=2024-03-04"), "{created}");
    assert!(
        !created.contains("dt=2024-03-01"),
        "it was told before: {created}"
    );

    // Nothing new is one request.
    let nothing = told.tells().catalog.unwrap();
    assert_eq!((nothing.tables, nothing.partitions), (0, 0));
    let operations = told.glue.operations();
    assert!(
        operations.iter().all(|operation| operation == "GetTables"),
        "{operations:?}"
    );
    told.rawmart(&["run"])
        .expect(0, &["Nothing new", "catalog: rawmart is up to date"]);
}

/// A catalog that fails at any request is told by the next run. The tables are published all the same.
pub fn fails_at_each_request(told: &Told, before: Option<Database>, step: usize) {
    let whole = told.glue.database();
    told.glue.set(before.clone());
    told.glue.take_log();
    told.tells();
    let requests = told.glue.take_log().len();
    assert!(requests > 10, "{requests}");
    for fault in [Fault::Close, Fault::AppliedThenClose, Fault::Deny] {
        for at in (0..requests).step_by(step) {
            let when = format!("{fault:?} at request {at} of {requests}");
            told.glue.set(before.clone());
            told.glue.fail(Some(at), fault);
            let (exit, summary) = told.run();
            let catalog = summary.catalog.unwrap();
            // What fails in the telling at the beginning of a run is tried again at its end.
            if exit != Exit::Done {
                let expected = match fault {
                    Fault::Deny => Exit::Usage,
                    _ => Exit::Store,
                };
                assert_eq!(exit, expected, "{catalog:?}, {when}");
                let plan = told.rawmart(&["plan"]);
                plan.expect(0, &["catalog rawmart: "]);
            }
            told.glue.heal();
            told.tells();
            assert_eq!(
                told.glue.database().tables.len(),
                whole.tables.len(),
                "{when}"
            );
        }
    }
}

#[test]
fn a_catalog_that_fails_while_tables_are_created_is_told_by_the_next_run() {
    fails_at_each_request(&Told::after(&[FIRST, SECOND]), None, 5);
}

#[test]
fn a_catalog_that_fails_while_tables_are_changed_is_told_by_the_next_run() {
    let told = Told::after(&[FIRST]);
    let before = told.glue.database();
    told.bucket.add(SECOND);
    told.tells();
    fails_at_each_request(&told, Some(before), 3);
}

#[test]
#[ignore = "minutes: every request, a step of .ci/run"]
fn a_catalog_that_fails_at_any_request_is_told_by_the_next_run() {
    let told = Told::after(&[FIRST]);
    let before = told.glue.database();
    told.bucket.add(SECOND);
    told.tells();
    fails_at_each_request(&told, Some(before), 1);
    fails_at_each_request(&told, None, 1);
}

#[test]
fn a_catalog_that_is_away_is_exit_6_with_the_tables_published() {
    let told = Told::new();
    told.bucket.add(FIRST);
    told.glue.fail(None, Fault::Close);
    let (code, summary) = told.run();
    assert_eq!(code, Exit::Store);
    assert_eq!(summary.commit, 2, "both commits are made");
    let lake = told.bucket.lake();
    assert!(lake.data_files().count() > 5);

    told.glue.fail(None, Fault::Hang);
    let impatient = StoreSettings {
        silence: Duration::from_millis(300),
        ..told.store()
    };
    let begun = std::time::Instant::now();
    let (code, summary) = told.run_with(impatient);
    assert_eq!(code, Exit::Store);
    let catalog = summary.catalog.unwrap();
    assert!(
        catalog.problems[0].error.contains("was silent for"),
        "{catalog:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(60));

    told.glue.fail(None, Fault::Deny);
    let ran = told.rawmart(&["run", "--output", "json"]);
    let says = [
        "the tables are published, and the catalog is behind",
        "not authorized to perform: glue:GetTables",
    ];
    ran.expect(2, &says);
    let document = ran.json();
    assert_eq!(document["outcome"], "catalog_behind");
    assert_eq!(document["error"]["code"], "access_denied");
    assert!(!format!("{ran:?}").contains(SECRET_KEY));

    told.glue.heal();
    let plan = told.rawmart(&["plan"]);
    plan.expect(
        0,
        &["catalog rawmart: behind", "daily: create, of commit 2"],
    );
    told.tells();
    told.rawmart(&["plan"])
        .expect(0, &["catalog rawmart: up to date", "Nothing to do"]);
}

#[test]
fn a_catalog_that_throttles_is_asked_again() {
    let told = Told::new();
    told.bucket.add(FIRST);
    let patient = StoreSettings {
        retry_for: Duration::from_secs(20),
        ..told.store()
    };
    for at in [0, 1, 4] {
        told.glue.set(None);
        told.glue.fail(Some(at), Fault::Throttle);
        let (code, _) = told.run_with(patient.clone());
        assert_eq!(code, Exit::Done);
        told.assert_told("throttled");
    }
    // An answer that was lost is no other writer.
    told.glue.set(None);
    for at in 1..6 {
        told.glue.set(None);
        told.glue.fail(Some(at), Fault::AppliedThenClose);
        let (code, summary) = told.run_with(patient.clone());
        assert_eq!(code, Exit::Done, "{summary:?}, request {at}");
        told.assert_told("answer lost");
    }
}

#[test]
fn new_columns_reach_every_partition_and_what_others_added_stays() {
    let told = Told::after(&[FIRST]);
    let mut database = told.glue.database();
    let table = database.tables.get_mut("app").unwrap();
    table.input["Parameters"]["team"] = "growth".into();
    table.input["StorageDescriptor"]["Columns"][2]["Comment"] = "who did it".into();
    told.glue.set(Some(database));
    let columns = |told: &Told| -> Vec<String> {
        let table = &told.glue.database().tables["app"];
        let columns = table.input["StorageDescriptor"]["Columns"]
            .as_array()
            .unwrap()
            .clone();
        columns
            .iter()
            .map(|c| c["Name"].as_str().unwrap().to_owned())
            .collect()
    };
    let before = columns(&told);
    told.configure(|toml| toml.replace("who = \"string\"", "who = \"string\"\nlate = \"json\""));
    told.bucket.add(SECOND);
    told.tells();
    let after = columns(&told);
    assert_eq!(after[..before.len()], before, "columns are appended");
    assert_eq!(after[before.len()..], ["late"]);
    let table = &told.glue.database().tables["app"];
    assert_eq!(table.input["Parameters"]["team"], "growth");
    let columns = &table.input["StorageDescriptor"]["Columns"];
    assert_eq!(columns[2]["Comment"], "who did it");
    assert_eq!(columns[before.len()]["Comment"], "JSON text");
    assert_eq!(columns[before.len()]["Type"], "string");
}

#[test]
fn a_table_that_others_made_is_refused_and_stays() {
    let told = Told::after(&[FIRST]);
    let mut database = told.glue.database();
    let mut theirs = Vec::new();
    for (name, lake) in [("daily", None), ("lately", Some("s3://other/lake/"))] {
        let table = database.tables.get_mut(name).unwrap();
        let parameters = table.input["Parameters"].as_object_mut().unwrap();
        parameters.remove("rawmart.lake");
        parameters.extend(lake.map(|lake| ("rawmart.lake".to_owned(), lake.into())));
        theirs.push(table.clone());
    }
    told.glue.set(Some(database));
    told.bucket.add(SECOND);
    let plan = told.rawmart(&["plan"]);
    plan.expect(
        0,
        &["daily: the catalog has a table of this name that this lake has not made"],
    );
    let ran = told.rawmart(&["run", "--output", "json"]);
    ran.expect(4, &["the catalog is behind", "daily"]);
    assert_eq!(ran.json()["error"]["code"], "catalog_refused");
    let (code, summary) = told.run();
    assert_eq!(code, Exit::Refused);
    let problems = summary.catalog.unwrap().problems;
    let tables: Vec<_> = problems
        .iter()
        .map(|p| p.table.as_deref().unwrap())
        .collect();
    assert_eq!(tables, ["daily", "lately"]);
    let remedy = "aws glue delete-table --database-name rawmart --name daily";
    assert!(problems[0].error.contains(remedy), "{problems:?}");
    let after = told.glue.database();
    assert_eq!(
        [&after.tables["daily"], &after.tables["lately"]],
        [&theirs[0], &theirs[1]]
    );
    assert_eq!(
        after.tables["app"].input["Parameters"]["rawmart.commit"], "3",
        "others are told"
    );

    // The remedy.
    let mut database = after;
    database.tables.remove("daily");
    database.tables.remove("lately");
    told.glue.set(Some(database));
    told.tells();
}

#[test]
fn partitions_that_the_catalog_refuses_are_named() {
    let told = Told::new();
    told.bucket.add(FIRST);
    told.glue.fail(None, Fault::Entries);
    let ran = told.rawmart(&["run"]);
    let refused = "the catalog refused 3 partitions of app, first 2024-03-01 (InternalServiceException: as told)";
    ran.expect(6, &[refused]);
    assert_eq!(
        told.glue.database().tables["app"].input["Parameters"]["rawmart.commit"],
        "0"
    );
    told.glue.heal();
    told.tells();
}

#[test]
fn a_mart_with_other_partitions_is_another_table() {
    let told = Told::after(&[FIRST]);
    let sql = "-- partition: who\nSELECT count(*) AS events, who FROM app GROUP BY who\n";
    told.bucket.project.write("sql/daily.sql", sql);
    told.bucket
        .project
        .write("sql/lately.sql", "SELECT count(*) AS n FROM daily\n");
    let (code, summary) = told.run();
    assert_eq!(code, Exit::Done, "{summary:?}");
    let tables = told.glue.database().tables;
    let keys = |name: &str| tables[name].input["PartitionKeys"].clone();
    assert_eq!(keys("daily")[0]["Name"], "who");
    assert_eq!(keys("lately").as_array().unwrap().len(), 0);
    let values: Vec<&Vec<String>> = tables["daily"].partitions.keys().collect();
    assert_eq!(values, [&["ann"], &["bob"], &["cid"], &["dan"], &["eve"]]);
}

#[test]
fn a_dropped_mart_leaves_the_catalog() {
    let told = Told::after(&[FIRST]);
    let gone = told.bucket.project.path("sql/total.sql");
    std::fs::remove_file(gone).unwrap();
    let drop = told.rawmart(&["marts", "--drop", "total"]);
    drop.expect(0, &[]);
    let plan = told.rawmart(&["plan"]);
    plan.expect(0, &["total: delete, the lake has no such table"]);
    // A table of others stays.
    let mut database = told.glue.database();
    let mut other = database.tables["total"].clone();
    other.input["Name"] = "theirs".into();
    let parameters = other.input["Parameters"].as_object_mut().unwrap();
    parameters.remove("rawmart.lake");
    database.tables.insert("theirs".to_owned(), other);
    told.glue.set(Some(database));
    let (code, _) = told.run();
    assert_eq!(code, Exit::Done);
    let mut database = told.glue.database();
    assert!(database.tables.remove("theirs").is_some());
    told.glue.set(Some(database));
    told.assert_told("after a drop");
}

#[test]
fn a_lake_that_is_begun_anew_is_told_although_its_commits_are_lower() {
    let told = Told::after(&[FIRST, SECOND]);
    for key in told.bucket.server.keys("lake") {
        told.bucket.server.remove("lake", &key);
    }
    for key in told.bucket.server.keys("raw") {
        told.bucket.server.remove("raw", &key);
    }
    told.bucket.add(SECOND);
    told.tells();
}

#[test]
fn partitions_go_in_batches_and_those_that_left_the_lake_are_deleted() {
    let told = Told::after(&[FIRST]);
    let by_id = "-- partition: dt, id\nSELECT count(*) AS n, dt, id FROM app GROUP BY dt, id\n";
    told.bucket.project.write("sql/by_id.sql", by_id);
    // Values that are escaped in folders, and NULL.
    let odd = r#"{"id":"it's/50%: 단지","time":"2024-03-02T05:00:00Z","who":"odd"}
{"time":"2024-03-02T05:00:00Z","who":"none"}"#;
    told.bucket.server.put("raw", "app/2024/03/02/05/odd", odd);
    let event = |i: usize| {
        let (minute, second) = (i / 60, i % 60);
        format!(
            "{{\"id\":\"i{i}\",\"time\":\"2024-03-02T01:{minute:02}:{second:02}Z\",\"who\":\"w{i}\"}}\n"
        )
    };
    let events: String = (0..210).map(event).collect();
    told.bucket
        .server
        .put("raw", "app/2024/03/02/02/many", events);
    told.glue.take_log();
    told.tells();
    let created = told.glue.operations();
    let batches = created
        .iter()
        .filter(|operation| *operation == "BatchCreatePartition")
        .count();
    assert!(batches >= 3, "{created:?}");

    // A rebuild may leave partitions without a file.
    let mut database = told.glue.database();
    let table = database.tables.get_mut("by_id").unwrap();
    let one = table.partitions.values().next().unwrap().clone();
    for i in 0..30 {
        let values = vec!["2020-01-01".to_owned(), format!("gone{i}")];
        let mut partition = one.clone();
        partition["Values"] = values.clone().into();
        table.partitions.insert(values, partition);
    }
    let partitions = table.partitions.len().to_string();
    table.input["Parameters"]["rawmart.partitions"] = partitions.into();
    told.glue.set(Some(database));
    told.bucket.add(SECOND);
    told.glue.take_log();
    told.tells();
    let deleted = told.glue.operations();
    let batches = deleted
        .iter()
        .filter(|operation| *operation == "BatchDeletePartition")
        .count();
    assert_eq!(batches, 2, "{deleted:?}");
}

/// One run is held at a request of its telling, while another absorbs what is new and tells the catalog.
pub fn an_older_commit_never_stays(first: &Told, toml: &str, step: usize) {
    let before = first.glue.database();
    let objects = first.bucket.copy();
    first.bucket.add(SECOND);
    first.glue.take_log();
    first.tells();
    let requests = first.glue.take_log().len();
    for at in (0..requests).step_by(step) {
        let when = format!("held at request {at} of {requests}");
        let told = Told::of(objects.copy());
        told.configure(|own| format!("{toml}{own}"));
        told.glue.set(Some(before.clone()));
        told.bucket.add(SECOND);
        let project = told.bucket.project.path("");
        let mut env = told.bucket.server.env();
        env.push(("RAWMART_MEMORY".to_owned(), "256MiB".to_owned()));
        let server = told.bucket.server.peek();
        let (folder, variables) = (project.clone(), env.clone());
        told.glue.meanwhile(at, move || {
            let late = r#"{"id":"z1","time":"2024-03-09T16:00:00Z","who":"zoe"}"#;
            server.put("raw", "app/2024/03/09/17/z", late);
            let ran = rawmart(&folder, &["run"], &variables);
            assert_eq!(ran.code, Some(0), "{ran:?}");
        });
        // It may lose its second commit to the other run.
        let held = rawmart(&project, &["run"], &env);
        assert!(matches!(held.code, Some(0 | 5)), "{held:?}, {when}");
        told.assert_told(&when);
    }
}

#[test]
fn an_older_commit_never_stays_in_the_place_of_a_newer_one() {
    an_older_commit_never_stays(&Told::after(&[FIRST]), "", 4);
}

#[test]
#[ignore = "minutes: every request, a step of .ci/run"]
fn an_older_commit_never_stays_at_any_request() {
    an_older_commit_never_stays(&Told::after(&[FIRST]), "", 1);
}

#[test]
fn a_catalog_needs_a_lake_in_s3() {
    let project = Project::new();
    let toml = crate::project::clicks("raw", "time", "", "within = \"10s\"");
    let with = |lake: &str, catalog: &str| {
        let catalog = format!("\n[catalog]\n{catalog}\n");
        project.write(
            "rawmart.toml",
            format!("lake = \"{lake}\"\n{toml}{catalog}"),
        );
        project.rawmart(&["config"])
    };
    with("lake", "type = \"glue\"").expect(2, &["catalog.type: Glue names tables in S3 alone"]);
    with("s3://lake/x", "type = \"hive\"").expect(2, &["`hive` is not known: write `glue`"]);
    with("s3://lake/x", "").expect(2, &["catalog.type: is missing"]);
    let wrong = "type = \"glue\"\ndatabase = \"My-Lake\"";
    with("s3://lake/x", wrong).expect(2, &["catalog.database: `My-Lake` is no name"]);
    for (key, value, says) in [
        ("endpoint", "localhost", "is no plain URL"),
        ("endpoint", "https://me:hunter2@glue/", "is no plain URL"),
        ("region", "Seoul!", "is no region"),
    ] {
        let ran = with(
            "s3://lake/x",
            &format!("type = \"glue\"\n{key} = \"{value}\""),
        );
        ran.expect(2, &[&format!("catalog.{key}: "), says]);
        assert!(!ran.err.contains("hunter2"), "{ran:?}");
    }
    let shown = with("s3://lake/x", "type = \"glue\"");
    shown.expect(0, &["[catalog]", "database = \"rawmart\""]);
    project.write("rawmart.toml", &shown.out);
    project.rawmart(&["config"]).expect(0, &["type = \"glue\""]);
}

/// A table of the policy in the documentation.
#[test]
fn the_policy_allows_the_operations_that_are_called_and_no_others() {
    let page = include_str!("../../docs/aws.md");
    let policy = page
        .split("```json")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let policy: Value = serde_json::from_str(policy).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let actions = statements
        .iter()
        .flat_map(|s| s["Action"].as_array().unwrap());
    let mut glue: Vec<&str> = actions
        .filter_map(|a| a.as_str().unwrap().strip_prefix("glue:"))
        .collect();
    glue.sort_unstable();
    let mut called = rawmart::catalog::glue::OPERATIONS.to_vec();
    called.sort_unstable();
    assert_eq!(glue, called);
}
