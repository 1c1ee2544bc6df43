//! The server's clock: the only one that its own records can be compared with.

/// An instant by the server's clock: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerTime(i64);

impl ServerTime {
    /// From microseconds since the Unix epoch, as [`ServerTime::micros`] gave them.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub fn micros(self) -> i64 {
        self.0
    }
}

/// The type `timestamp` (`pg_type.oid`).
pub(super) const TIMESTAMP: u32 = 1114;
/// The type `timestamptz`.
pub(super) const TIMESTAMPTZ: u32 = 1184;

/// SQL: a `timestamptz` expression as microseconds since the epoch. Exact to the microsecond also on servers before 14, where
/// `extract` gives a double.
pub(super) fn to_micros(expression: &str) -> String {
    format!("(extract(epoch from {expression}) * 1000000)::bigint")
}

/// SQL: parameter `$n`, in microseconds since the epoch, as `timestamptz`. Not `to_timestamp`, which goes through a double
/// of seconds.
pub(super) fn from_micros(n: usize) -> String {
    format!("(timestamptz 'epoch' + ${n}::bigint * interval '1 microsecond')")
}
