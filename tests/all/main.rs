#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
#![expect(
    clippy::too_many_lines,
    reason = "a test may be one long table of cases"
)]
mod bad_input;
mod cases;
mod checks;
mod chosen;
mod cost;
mod crash;
mod damage;
mod demo;
mod docs;
mod doctor;
mod drops;
mod endless;
mod envelopes;
mod estimates;
mod fake_glue;
mod full_disk;
mod github_archive;
mod glue;
mod history;
mod init;
mod marts;
mod oracle;
mod outside;
mod printed;
mod project;
mod query;
mod raw_objects;
mod readable;
mod remedies;
mod reprocess;
mod rooms;
mod s3;
mod s3_runs;
mod schema;
mod small;
mod snapshots;
mod sql_law;
mod store;
mod tables;
mod told;
mod values;
mod verify;
mod versions;
mod versions_told;
mod why;
#[cfg(target_os = "linux")]
mod within_memory;
mod writers;
