//! Waiting for conditions, with a limit.

use std::time::{Duration, Instant};

use crate::TestkitError;

/// Asks `look` again every 50 ms until it returns something, for `limit` at most. The error says `what` did not come true.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut look: F) -> Result<T, TestkitError>
where
    F: AsyncFnMut() -> Option<T>,
{
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look().await {
            return Ok(seen);
        }
        if Instant::now() >= end {
            return Err(TestkitError::NotInTime {
                what: what.to_owned(),
                limit,
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
