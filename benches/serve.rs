//! Runs the S3 server of the tests for measurements. Its objects are in memory, and each answer is delayed.
//!
//! ```sh
//! cargo bench --bench serve -- --raw FOLDER
//! ```
//!
//! The server takes little of the cores that are measured, as S3 takes none. Servers that keep objects on disk
//! are in the interop checks. Raw objects are under `s3://bench/raw/`. The server prints the environment that
//! reaches it, and runs until it is killed.

#[path = "../tests/all/s3.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "it is a part of the tests, which have use for more of it"
)]
mod s3;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use s3::{Asked, Control, S3Server};

#[derive(Debug, Parser)]
#[command(name = "serve")]
struct Arguments {
    /// Its files are the raw objects
    #[arg(long)]
    raw: PathBuf,
    /// Before a request is carried out
    #[arg(long, default_value_t = 30)]
    delay_ms: u64,
}

struct Delay(Duration);

#[async_trait::async_trait]
impl Control for Delay {
    async fn before(&self, _: &Asked) -> bool {
        tokio::time::sleep(self.0).await;
        true
    }

    async fn after(&self, _: &Asked) -> bool {
        true
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` adds an argument of its own.
    let asked = Arguments::parse_from(std::env::args_os().filter(|argument| argument != "--bench"));
    let server = S3Server::start(&["bench"]);
    put(&server, &asked.raw, "raw")?;
    let delay = Duration::from_millis(asked.delay_ms);
    server.control(Some(Arc::new(Delay(delay))));
    let mut out = std::io::stdout();
    for (name, value) in server.env() {
        writeln!(out, "{name}={value}")?;
    }
    writeln!(out)?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}

/// Puts the files below a folder under a key.
fn put(server: &S3Server, folder: &Path, key: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let key = format!("{key}/{}", entry.file_name().to_string_lossy());
        match entry.file_type()?.is_dir() {
            true => put(server, &entry.path(), &key)?,
            false => server.put("bench", &key, std::fs::read(entry.path())?),
        }
    }
    Ok(())
}
