//! What containers wrote.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt as _;
use jiff::Timestamp;

use super::engine::Engine;
use super::error::EngineError;

/// A line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the engine got it.
    pub at: Timestamp,
    /// The line, redacted, without its end.
    pub text: String,
}

impl LogLine {
    /// Whether it reads like an error: one of the usual words, or a numeric level of 50 or more (pino, bunyan). A hint for
    /// people; nothing is decided by it.
    pub fn looks_like_error(&self) -> bool {
        let lower = self.text.to_lowercase();
        let words = [
            "error",
            "fatal",
            "panic",
            "exception",
            "traceback",
            "unhandled",
        ];
        words.iter().any(|w| lower.contains(w))
            || lower.contains("\"level\":50")
            || lower.contains("\"level\":60")
    }
}

impl Engine {
    /// At most `limit` lines that a container wrote since `since`, the last ones, oldest first. Not every logging driver can
    /// be read; then it is an error.
    pub async fn logs_since(
        &self,
        container: &str,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<LogLine>, EngineError> {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            timestamps: true,
            // Whole seconds only; what is too early is left out below.
            since: i32::try_from(since.as_second()).unwrap_or(0),
            tail: limit.to_string(),
            ..Default::default()
        };
        let read = async {
            let mut lines = Vec::new();
            let mut stream = Box::pin(self.docker.logs(container, Some(options)));
            while let Some(chunk) = stream.next().await {
                let bytes = match chunk? {
                    LogOutput::StdOut { message }
                    | LogOutput::StdErr { message }
                    | LogOutput::Console { message }
                    | LogOutput::StdIn { message } => message,
                };
                let text = String::from_utf8_lossy(&bytes);
                lines.extend(text.lines().filter_map(line));
            }
            Ok(lines)
        };
        let lines = self
            .ask(&format!("read the log of {container}"), read)
            .await?;
        let mut lines: Vec<LogLine> = lines
            .into_iter()
            .filter(|l| l.at >= since)
            .map(|l| LogLine {
                text: self.clean(&l.text),
                ..l
            })
            .collect();
        lines.sort_by_key(|l| l.at); // the two streams come one after the other
        Ok(lines)
    }
}

/// `<RFC 3339> <text>`.
fn line(text: &str) -> Option<LogLine> {
    let (at, text) = text.split_once(' ').unwrap_or((text, ""));
    Some(LogLine {
        at: at.parse().ok()?,
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_time_is_taken_off_each_line() {
        let read = line("2026-11-24T00:06:48.123456789Z GET / 500 Error: x").unwrap();
        assert_eq!(read.text, "GET / 500 Error: x");
        assert!(read.looks_like_error());
        assert!(
            !line("2026-11-24T00:06:48Z listening")
                .unwrap()
                .looks_like_error()
        );
        assert!(
            line("2026-11-24T00:06:48Z {\"level\":50}")
                .unwrap()
                .looks_like_error()
        );
        assert_eq!(line("2026-11-24T00:06:48Z").unwrap().text, "");
    }
}
