//! Sets up the process, and turns an outcome into an exit code.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use chrono::Utc;
use rawmart::cli::{Asked, LogFormat, Output, Request, Verb};
use rawmart::dedup::Hashing;
use rawmart::ledger::Dates;
use rawmart::plan::Rebuild;
use rawmart::report::{Exit, Failure, Outcome, Report, Signal};
use rawmart::run::{Context, Depth, Options};
use rawmart::store::StoreSettings;
use rawmart::{cli, config, report, run};

fn main() -> ExitCode {
    with_little_kept();
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(error) => {
            report::usage(&error);
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    log_to_stderr(&request);
    // A panic is a defect. Its message goes to stderr as one line, without a backtrace. A panic inside a mart
    // becomes the error of this mart.
    std::panic::set_hook(Box::new(|panic| {
        if rawmart::mart::panics_are_caught() {
            return;
        }
        let _ = std::io::Write::write_fmt(
            &mut report::stderr(),
            format_args!("error: {panic}; this is a defect of rawmart\n"),
        );
    }));
    let begun = std::time::Instant::now();
    let result = match std::panic::catch_unwind(|| execute(&request)) {
        Ok(result) => result,
        Err(_) => return ExitCode::from(Exit::Internal as u8),
    };
    let (seconds, here) = (begun.elapsed().as_secs_f64(), std::env::current_dir().ok());
    let exit = match result {
        Ok(outcome) => match outcome.print(request.output, seconds, here.as_deref()) {
            Ok(()) => outcome.exit(),
            // The reader has closed the pipe because he has read enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => outcome.exit(),
            Err(error) => {
                let failure = Failure::Unprinted(error);
                failure.print();
                match outcome.exit() {
                    Exit::Done => failure.exit(),
                    worse => worse,
                }
            }
        },
        Err(failure) => {
            failure.print();
            if request.output == Output::Json {
                failure.print_json();
            }
            failure.exit()
        }
    };
    ExitCode::from(exit as u8)
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

fn execute(request: &Request) -> Result<Outcome, Failure> {
    let interrupted = interruption()
        .map_err(|error| Failure::Defect(format!("cannot wait for signals: {error}")))?;
    let here = std::env::current_dir().map_err(Failure::NoFolder)?;
    let job = config::load(&request.overrides, &config::environment, &here)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(job.threads.max(2))
        .enable_all()
        .build()
        .map_err(|error| Failure::Defect(format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = perform(request, job) => outcome,
            Ok(signal) = interrupted => Err(Failure::Interrupted(signal)),
        }
    });
    // After a signal, workers may still be decoding. Nothing that they do is needed.
    runtime.shutdown_background();
    outcome
}

async fn perform(request: &Request, job: config::Job) -> Result<Outcome, Failure> {
    Ok(match &request.verb {
        Verb::Config => Outcome::Config(Box::new(job)),
        Verb::Tables => Outcome::Tables(run::describe_tables(&job).await?),
        Verb::Ddl(asked) => Outcome::Ddl(run::ddl(&job, asked).await?),
        Verb::Plan(asked) => Outcome::Plan(run::plan(&job, &options(asked)).await?),
        Verb::History { which: None, limit } => Outcome::History(run::history(&job, *limit).await?),
        Verb::History {
            which: Some(which), ..
        } => Outcome::PastRun(run::past_run(&job, which).await?),
        Verb::Verify {
            repair: false,
            depth,
        } => {
            let settings = StoreSettings::default();
            Outcome::Verified(run::verify(&job, how_deep(*depth), &settings).await?)
        }
        Verb::Verify {
            repair: true,
            depth,
        } => {
            let report = Report::new(request.verbosity < 0);
            let result = run::repair(&job, how_deep(*depth), &context(&report)).await;
            report.finish();
            Outcome::Verified(result?)
        }
        Verb::Run(asked) => changing(request, &job, &options(asked)).await?,
        Verb::Rebuild {
            asked,
            from,
            to,
            raw,
            forget_missing,
        } => {
            let rebuild = Rebuild {
                dates: from.zip(*to).map(|(from, to)| Dates { from, to }),
                raw: *raw,
                forget_missing: *forget_missing,
            };
            let options = Options {
                rebuild: Some(rebuild),
                ..options(asked)
            };
            changing(request, &job, &options).await?
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

/// Runs a command that may commit.
async fn changing(
    request: &Request,
    job: &config::Job,
    options: &Options,
) -> Result<Outcome, Failure> {
    let report = Report::new(request.verbosity < 0);
    let result = run::run(job, options, &context(&report)).await;
    report.finish();
    Ok(Outcome::Run(result?))
}

/// The values of an invocation that only this process knows.
fn context(report: &Report) -> Context {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    let now = Utc::now();
    let run = format!("{}-{:08x}", now.format("%Y%m%dT%H%M%SZ"), unique());
    Context {
        now,
        run,
        progress: report.listen(),
        store: StoreSettings::default(),
        hashing: Hashing::random(),
    }
}

/// Waits for the signals of a terminal and of a scheduler. It has its own thread, because all other threads may
/// be busy with a query that never yields. The first signal is reported. A second signal, or two seconds after
/// the first one, ends the process at any point. Nothing is lost: the work of a commit that was not made is
/// done again, and a commit that was made is published by the next run.
fn interruption() -> std::io::Result<tokio::sync::oneshot::Receiver<Signal>> {
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
        let failure = Failure::Interrupted(first);
        failure.print();
        std::process::exit(failure.exit() as i32)
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

fn log_to_stderr(request: &Request) {
    let level = match request.verbosity {
        ..=-2 => "off",
        -1 => "error",
        0 => "warn",
        1 => "warn,rawmart=info",
        2 => "info,rawmart=debug",
        _ => "debug",
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_ansi(false)
        .with_writer(report::stderr);
    match request.log_format {
        LogFormat::Text => log.without_time().init(),
        LogFormat::Json => log.json().init(),
    }
}
