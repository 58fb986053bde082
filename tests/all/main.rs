#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
mod bad_input;
mod demo;
mod github_archive;
mod oracle;
mod project;
mod s3;
mod s3_runs;
mod store;
