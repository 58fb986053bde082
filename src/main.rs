//! Process set-up, and the way from an outcome to an exit code.

use std::process::ExitCode;

use chrono::Utc;
use rawmart::cli::{LogFormat, Request, Verb};
use rawmart::report::{Exit, Failure, Outcome, Report, Signal};
use rawmart::run::{Context, Options};
use rawmart::{cli, config, run};

fn main() -> ExitCode {
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    log_to_stderr(&request);
    // A panic is a defect: its message goes to stderr as one line, without a backtrace.
    std::panic::set_hook(Box::new(|panic| {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("error: {panic}; this is a defect of rawmart\n"),
        );
    }));
    let begun = std::time::Instant::now();
    let result = match std::panic::catch_unwind(|| execute(&request)) {
        Ok(result) => result,
        Err(_) => return ExitCode::from(Exit::Internal as u8),
    };
    let exit = match result {
        Ok(outcome) => match outcome.print(request.output, begun.elapsed().as_secs_f64()) {
            Ok(()) => outcome.exit(),
            // Whoever closed the pipe has read enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => outcome.exit(),
            Err(error) => {
                let failure = Failure::Defect(format!("cannot write the result: {error}"));
                failure.print();
                failure.exit()
            }
        },
        Err(failure) => {
            failure.print();
            failure.exit()
        }
    };
    ExitCode::from(exit as u8)
}

fn execute(request: &Request) -> Result<Outcome, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::Defect(format!("cannot tell the working directory: {error}")))?;
    let job = config::load(&request.overrides, &config::environment, &here)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(job.threads.max(2))
        .enable_all()
        .build()
        .map_err(|error| Failure::Defect(format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = perform(request, job) => outcome,
            signal = signalled() => Err(Failure::Interrupted(signal)),
        }
    });
    // After a signal, workers may still be decoding: they have nothing to finish.
    runtime.shutdown_background();
    outcome
}

async fn perform(request: &Request, job: config::Job) -> Result<Outcome, Failure> {
    Ok(match &request.verb {
        Verb::Config => Outcome::Config(Box::new(job)),
        Verb::Plan => {
            let options = Options {
                sources: Vec::new(),
                marts: true,
            };
            Outcome::Plan(run::plan(&job, &options).await?)
        }
        Verb::Verify => Outcome::Verified(run::verify(&job).await?),
        Verb::Run { sources, marts } => {
            #[expect(
                clippy::disallowed_methods,
                reason = "the one place that reads the clock"
            )]
            let now = Utc::now();
            let run = format!("{}-{:08x}", now.format("%Y%m%dT%H%M%SZ"), unique());
            let report = Report::new(request.verbosity < 0);
            let context = Context {
                now,
                run,
                report: report.clone(),
            };
            let options = Options {
                sources: sources.clone(),
                marts: *marts,
            };
            let result = run::run(&job, &options, &context).await;
            report.finish();
            Outcome::Run(result?)
        }
    })
}

/// Waits for the signals of a terminal and of a scheduler.
async fn signalled() -> Signal {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => Signal::Interrupt,
        Some(()) = terminate.recv() => Signal::Terminate,
        else => std::future::pending().await,
    }
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
        .with_writer(std::io::stderr);
    match request.log_format {
        LogFormat::Text => log.without_time().init(),
        LogFormat::Json => log.json().init(),
    }
}
