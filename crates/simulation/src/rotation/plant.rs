//! Defects that are planted, to show that they are found.

/// One defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Commits return before they are on the disk, as with `synchronous=OFF`.
    NoSync,
    /// An observation answers from what the journal says was intended, and does not look.
    TrustingObserve,
    /// A keyroll that was fenced writes its record all the same.
    UnfencedAppend,
    /// The outcome of an act is reported before its effect has come about.
    OutcomeFirst,
}

impl Plant {
    /// All of them, by the names that they are asked for with.
    pub const ALL: [(&str, Self); 4] = [
        ("no-sync", Self::NoSync),
        ("trusting-observe", Self::TrustingObserve),
        ("unfenced-append", Self::UnfencedAppend),
        ("outcome-first", Self::OutcomeFirst),
    ];
}
