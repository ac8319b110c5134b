//! Exit codes: 0 done, 1 failed, 2 usage, 3 findings at or above `--fail-on`, 78 configuration.

use std::io::IsTerminal;
use std::process::ExitCode;

use detect::rule::RuleErrors;
use runtime::log::LogError;
use schemas::text::escape_controls;

/// How a command ended, if not in failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It did what it could; some input could not be used, and has been reported.
    Incomplete,
    /// Findings at or above `--fail-on`.
    Found,
}

/// The configuration or the rules are wrong: exit code 78, and nothing but the message.
#[derive(Debug)]
pub struct ConfigurationError(pub String);

impl std::fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigurationError {}

/// Rules that do not load, to be drawn for who is writing them. Elsewhere a line for each is enough.
#[derive(Debug)]
pub struct BrokenRules(pub RuleErrors);

impl std::fmt::Display for BrokenRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BrokenRules {}

/// Prints the error, if it is one, and gives the process its code.
pub fn code(result: anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Incomplete) => ExitCode::from(1),
        Ok(Outcome::Found) => ExitCode::from(3),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(BrokenRules(errors)) = error.downcast_ref() {
                let count = errors.reports().len();
                eprint!("{}", errors.render(std::io::stderr().is_terminal()));
                eprintln!("{count} {}, no rules loaded", if count == 1 { "problem" } else { "problems" });
                return ExitCode::from(78);
            }
            if error.is::<ConfigurationError>() || error.is::<RuleErrors>() {
                eprintln!("{error}");
                return ExitCode::from(78);
            }
            eprintln!("harrier: {}", told(&error));
            let refused = error.chain().any(|cause| {
                matches!(cause.downcast_ref(), Some(LogError::Refused(_)))
                    || matches!(
                        cause.downcast_ref(),
                        Some(detect::service::Error::Rules { .. } | detect::service::Error::Places(_))
                    )
            });
            ExitCode::from(if refused { 78 } else { 1 })
        }
    }
}

/// The chain of causes, each said once; line by line, because engines explain themselves over several.
pub fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !told.contains(&cause) {
            told.push_str(if told.is_empty() { "" } else { ": " });
            told.push_str(&cause);
        }
    }
    told.lines().map(escape_controls).collect::<Vec<_>>().join("\n  ")
}

/// `harrier sql ... | head` is not a failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
