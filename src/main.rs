//! Sets up the process, and turns an outcome into an exit code.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use chrono::Utc;
use rawmart::cli::{Asked, Format, GraphForm, LogFormat, Output, Request, Verb};
use rawmart::dedup::Hashing;
use rawmart::report::{Answer, Answering, Failure, Outcome, Report, Signal, Teller};
use rawmart::run::{Context, Depth, Diagnosis, InitAsked, Options};
use rawmart::store::StoreSettings;
use rawmart::{cli, config, report, run};

fn main() -> ExitCode {
    with_little_kept();
    let begun = Instant::now();
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(error) => {
            let forms = cli::forms(std::env::args_os());
            log_to_stderr(forms.log_format, 0);
            return ExitCode::from(Teller::of_forms(forms, begun).usage(&error) as u8);
        }
    };
    log_to_stderr(request.log_format, request.verbosity);
    let teller = Teller::new(&request, begun, std::env::current_dir().ok());
    let panicked = tell_panics(&teller);
    let exit = match std::panic::catch_unwind(|| execute(&request, &teller)) {
        Ok(Ok(outcome)) => teller.outcome(&outcome),
        Ok(Err(failure)) => teller.failure(&failure),
        Err(_) => {
            let message = panicked.lock().unwrap_or_else(PoisonError::into_inner);
            teller.panicked(&message)
        }
    };
    ExitCode::from(exit as u8)
}

/// Tells a panic to stderr as one line, without a backtrace: it is a defect. A panic of a mart is told as the error of
/// this mart. The result holds the message of the last panic.
fn tell_panics(teller: &Teller) -> Arc<Mutex<String>> {
    let last = Arc::new(Mutex::new(String::new()));
    let (teller, kept) = (teller.clone(), Arc::clone(&last));
    std::panic::set_hook(Box::new(move |panic| {
        if rawmart::mart::panics_are_caught() {
            return;
        }
        let message = panic.to_string();
        teller.panic(&message);
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = message;
    }));
    last
}

/// Starts this process again with limits on the memory that the allocator of glibc keeps, because glibc reads
/// the limits from the environment before any of this code runs. Without limits it has eight arenas for each
/// core, and memory that was freed in one arena cannot be used by the threads of another. A run with 256 MiB
/// peaked at 594 MB, and at 443 MB with one arena for each core. In addition, blocks of up to 32 MiB come from
/// arenas, and wide rows are such blocks. They leave holes that the next block does not fit into. With a limit
/// of 4 MiB, each larger block is given back to the system by itself.
fn with_little_kept() {
    const ARENAS: &str = "MALLOC_ARENA_MAX";
    const BY_ITSELF: &str = "MALLOC_MMAP_THRESHOLD_";
    let is_set = std::env::var_os(ARENAS).is_some();
    if is_set || !cfg!(target_env = "gnu") {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let mut arguments = std::env::args_os();
    if let (Ok(own), Some(name)) = (std::env::current_exe(), arguments.next()) {
        let mut again = std::process::Command::new(own);
        again
            .arg0(name)
            .args(arguments)
            .env(ARENAS, cores.to_string())
            .env(BY_ITSELF, (4 << 20).to_string());
        // `exec` returns only if it fails. The process then goes on as it is and only takes more memory.
        let _ = again.exec();
    }
}

fn execute(request: &Request, teller: &Teller) -> Result<Outcome, Failure> {
    let interrupted = interruption(teller.clone())
        .map_err(|error| Failure::Defect(format!("cannot wait for signals: {error}")))?;
    let here = std::env::current_dir().map_err(Failure::NoFolder)?;
    // A new project has no configuration yet.
    let job = match &request.verb {
        Verb::Init(_) => None,
        Verb::Doctor => match config::load(&request.overrides, &config::environment, &here) {
            Ok(job) => Some(job),
            Err(error) => return Ok(Outcome::Diagnosed(Diagnosis::of_configuration(&error))),
        },
        _ => Some(config::load(
            &request.overrides,
            &config::environment,
            &here,
        )?),
    };
    let threads = job.as_ref().map_or(2, |job| job.threads.max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| Failure::Defect(format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = begin(request, job, &here, teller) => outcome,
            Ok(signal) = interrupted => Err(Failure::Interrupted(signal)),
        }
    });
    // After a signal, workers may still be decoding. Nothing that they do is needed.
    runtime.shutdown_background();
    outcome
}

/// Does what needs no configuration, and everything else with the one that was read.
async fn begin(
    request: &Request,
    job: Option<config::Job>,
    here: &Path,
    teller: &Teller,
) -> Result<Outcome, Failure> {
    match (&request.verb, job) {
        (Verb::Init(raw), _) => {
            let overrides = &request.overrides;
            let asked = InitAsked {
                raw,
                overrides,
                here,
            };
            let settings = StoreSettings::default();
            Ok(Outcome::Initiated(run::init(&asked, &settings).await?))
        }
        (_, Some(job)) => perform(request, job, teller).await,
        (_, None) => Err(Failure::Defect("no configuration was read".to_owned())),
    }
}

async fn perform(request: &Request, job: config::Job, teller: &Teller) -> Result<Outcome, Failure> {
    Ok(match &request.verb {
        Verb::Init(_) => return Err(Failure::Defect("init has no configuration".to_owned())),
        Verb::Doctor => {
            let report = Report::new(teller);
            let found = run::doctor(&job, &context(&job, &report)).await;
            report.finish();
            Outcome::Diagnosed(found?)
        }
        Verb::Config => Outcome::Config(Box::new(job)),
        Verb::Lint => Outcome::Linted(run::lint(&job).await?),
        Verb::Why(asked) => Outcome::Why(run::why(&job, asked).await?),
        Verb::Query { sql, format } => Outcome::Answer(answer(request, &job, sql, *format).await?),
        Verb::Tables => Outcome::Tables(run::describe_tables(&job).await?),
        Verb::Ddl(asked) => Outcome::Ddl(run::ddl(&job, asked).await?),
        Verb::Plan {
            asked,
            rebuild,
            exit_code,
        } => {
            let options = Options {
                rebuild: rebuild.clone(),
                ..options(asked)
            };
            Outcome::Plan {
                plan: run::plan(&job, &options).await?,
                exit_code: *exit_code,
            }
        }
        Verb::Test { asked, junit } => tested(&job, asked, junit.as_deref()).await?,
        Verb::TestReach(names) => Outcome::Reached(run::test_reach(&job, names).await?),
        Verb::Marts {
            asked,
            graph: Some(form),
        } => Outcome::Drawn {
            drawn: run::draw_marts(&job, asked)?,
            mermaid: *form == GraphForm::Mermaid,
        },
        Verb::Marts { asked, graph: None } => {
            let report = Report::new(teller);
            let result = run::build_marts(&job, asked, &context(&job, &report)).await;
            report.finish();
            Outcome::Run(result?)
        }
        Verb::History { which: None, limit } => Outcome::History(run::history(&job, *limit).await?),
        Verb::History {
            which: Some(which), ..
        } => Outcome::PastRun(run::past_run(&job, which).await?),
        Verb::Verify {
            repair: false,
            depth,
        } => {
            let settings = run::stores(&job);
            Outcome::Verified(run::verify(&job, how_deep(*depth), &settings).await?)
        }
        Verb::Verify {
            repair: true,
            depth,
        } => {
            let report = Report::new(teller);
            let result = run::repair(&job, how_deep(*depth), &context(&job, &report)).await;
            report.finish();
            Outcome::Verified(result?)
        }
        Verb::DropMart(name) => {
            let report = Report::new(teller);
            let result = run::drop_mart(&job, name, &context(&job, &report)).await;
            report.finish();
            Outcome::Dropped(result?)
        }
        Verb::Run(asked) => changing(teller, &job, &options(asked)).await?,
        Verb::Rebuild { asked, rebuild } => {
            let options = Options {
                rebuild: Some(rebuild.clone()),
                ..options(asked)
            };
            changing(teller, &job, &options).await?
        }
    })
}

const fn how_deep(asked: cli::Depth) -> Depth {
    match asked {
        cli::Depth::Quick => Depth::Quick,
        cli::Depth::Usual => Depth::Usual,
        cli::Depth::Deep => Depth::Deep,
    }
}

fn options(asked: &Asked) -> Options {
    Options {
        sources: asked.sources.clone(),
        marts: asked.marts,
        replace_changed: asked.replace_changed,
        relist: asked.relist,
        ..Options::default()
    }
}

/// Answers a query. A document has the rows as an array, whatever their format.
async fn answer(
    request: &Request,
    job: &config::Job,
    sql: &run::Sql,
    format: Format,
) -> Result<Answer, Failure> {
    let mut answering = Answering::new(match request.output {
        Output::Json => Format::Json,
        Output::Text => format,
    });
    run::query(job, sql, &mut |part| answering.take(part)).await?;
    let answer = answering.answer();
    answer.ok_or_else(|| Failure::Defect("the answer has no end".to_owned()))
}

/// Tests marts, and writes the results as JUnit XML into the file `junit`.
async fn tested(
    job: &config::Job,
    asked: &run::TestAsked,
    junit: Option<&Path>,
) -> Result<Outcome, Failure> {
    let tested = run::test_marts(job, asked).await?;
    if let Some(file) = junit {
        let written = std::fs::write(file, report::junit(&tested));
        let file = file.to_owned();
        written.map_err(|source| Failure::Unwritten { file, source })?;
    }
    Ok(Outcome::Tested(tested))
}

/// Runs a command that may commit.
async fn changing(
    teller: &Teller,
    job: &config::Job,
    options: &Options,
) -> Result<Outcome, Failure> {
    let report = Report::new(teller);
    let result = run::run(job, options, &context(job, &report)).await;
    report.finish();
    Ok(Outcome::Run(result?))
}

/// The values of an invocation that only this process knows.
fn context(job: &config::Job, report: &Report) -> Context {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    let now = Utc::now();
    let run = format!("{}-{:08x}", now.format("%Y%m%dT%H%M%SZ"), unique());
    Context {
        now,
        begun: Instant::now(),
        run,
        progress: report.listen(),
        store: run::stores(job),
        hashing: Hashing::random(),
    }
}

/// Waits for the signals of a terminal and of a scheduler. It has its own thread, because all other threads may
/// be busy with a query that never yields. The first signal is reported. A second signal, or two seconds after
/// the first one, ends the process at any point. Nothing is lost: the work of a commit that was not made is
/// done again, and a commit that was made is published by the next run.
fn interruption(teller: Teller) -> std::io::Result<tokio::sync::oneshot::Receiver<Signal>> {
    use tokio::signal::unix::{SignalKind, signal};
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
    let (tell, told) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let wait = async move {
        let mut next = async || {
            tokio::select! {
                Some(()) = interrupt.recv() => Signal::Interrupt,
                Some(()) = terminate.recv() => Signal::Terminate,
                else => std::future::pending().await,
            }
        };
        let first = next().await;
        let _ = tell.send(first);
        let _ = tokio::time::timeout(PATIENCE, next()).await;
        let exit = teller.failure(&Failure::Interrupted(first));
        std::process::exit(exit as i32)
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(wait))?;
    Ok(told)
}

/// Tells apart two runs that start in the same second.
fn unique() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    u32::try_from(hasher.finish() & 0xffff_ffff).unwrap_or(0)
}

/// Writes log lines to stderr. Each `-v` raises the verbosity, and each `-q` lowers it.
fn log_to_stderr(format: LogFormat, verbosity: i8) {
    let level = match verbosity {
        ..=-1 => "rawmart=error",
        // Other crates dump their errors, which are told in our words.
        0 => "rawmart=warn",
        1 => "warn,rawmart=info",
        2 => "info,rawmart=debug",
        _ => "debug",
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_ansi(false)
        .with_writer(report::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
