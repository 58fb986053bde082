//! Tells of requests that a server did not answer and that the client sends again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};
use tokio::time::Instant;

/// Between two lines at least this time passes: many requests may fail at once.
const PAUSE: Duration = Duration::from_secs(1);

/// The requests of one client that have had no usable answer so far.
#[derive(Debug)]
pub(super) struct Retries {
    /// How long the client tries one request.
    retry_for: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When each failing request was sent first.
    failing: HashMap<String, Instant>,
    told: Option<Instant>,
}

impl Retries {
    pub(super) fn new(retry_for: Duration) -> Self {
        Self {
            retry_for,
            state: Mutex::default(),
        }
    }

    /// Forgets a request that was answered.
    pub(super) fn answered(&self, request: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failing.remove(request);
    }

    /// Notes that a request, sent at `begun`, failed for the reason `why`. Tells so, unless a line was told just now
    /// or the client gives up.
    pub(super) fn failed(&self, request: &str, host: &str, begun: Instant, why: &str) {
        if let Some(line) = self.line(request, host, begun, why, Instant::now()) {
            tracing::warn!("{line}");
        }
    }

    fn line(
        &self,
        request: &str,
        host: &str,
        begun: Instant,
        why: &str,
        now: Instant,
    ) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The client gave up on the requests that are older.
        let retry_for = self.retry_for;
        state
            .failing
            .retain(|_, since| now.duration_since(*since) < 2 * retry_for);
        let since = *state.failing.entry(request.to_owned()).or_insert(begun);
        let tried = now.duration_since(since);
        let left = retry_for.checked_sub(tried)?.as_secs();
        let recently = state.told.is_some_and(|told| now < told + PAUSE);
        if left == 0 || recently {
            return None;
        }
        state.told = Some(now);
        let tried = match tried.as_secs() {
            0 => String::new(),
            seconds => format!(" for {seconds} s"),
        };
        Some(format!(
            "no usable answer from {host}{tried} ({why}), trying for {left} s more"
        ))
    }
}

/// Why a request got no answer, where the client sends it again. The innermost cause alone: the outer ones repeat the
/// URL.
pub(super) fn why_not_sent(error: &HttpError) -> Option<String> {
    match error.kind() {
        HttpErrorKind::Connect
        | HttpErrorKind::Request
        | HttpErrorKind::Timeout
        | HttpErrorKind::Interrupted => {}
        _ => return None,
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    Some(innermost.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_retry_is_told_with_the_time_that_is_left() {
        let retries = Retries::new(Duration::from_secs(60));
        let begun = Instant::now();
        let line = |request: &str, begun: Instant, seconds: u64| {
            let now = begun + Duration::from_secs(seconds);
            retries.line(request, "s3.example", begun, "503", now)
        };
        assert_eq!(
            line("GET a", begun, 0).unwrap(),
            "no usable answer from s3.example (503), trying for 60 s more"
        );
        // Another request fails at once.
        assert_eq!(line("GET b", begun, 0), None);
        assert_eq!(
            line("GET a", begun, 10).unwrap(),
            "no usable answer from s3.example for 10 s (503), trying for 50 s more"
        );
        // The time of a request that was answered begins anew.
        retries.answered("GET a");
        let later = begun + Duration::from_secs(12);
        let told = line("GET a", later, 0).unwrap();
        assert!(told.ends_with("(503), trying for 60 s more"), "{told}");
        // The client gives up.
        assert_eq!(line("GET b", begun, 61), None);
    }
}
