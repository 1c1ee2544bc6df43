//! Never locking the admin out.

use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;

/// Counts the logins of one admin that went wrong, or may have, against the number at which the panel locks the account.
///
/// The rules:
///
/// - The negative control uses the *real* admin's e-mail with a random password. An unknown e-mail would only show that
///   unknown users are refused, and panels count by address as well, so it would save nothing.
/// - Every login takes one from the budget beforehand, also one that is expected to be right: it may turn out wrong.
/// - A login that was accepted ends the row: the limit is one of wrong logins *in a row*, as panels count them. For a panel
///   that forgets wrong logins by time alone, set a lower limit.
/// - A login whose request was certainly never sent gives its one back.
/// - Everything else stays counted: a refusal, a 423 or 429, a 500, a timeout.
/// - One login fewer than the panel's limit may go wrong in all, counting what earlier runs of the same rotation spent.
#[derive(Debug)]
pub struct WrongLoginBudget {
    limit: u32,
    spent: AtomicU32,
}

/// One more wrong login could lock the account; nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{spent} logins have gone wrong in this rotation and the panel locks the account at {limit}; no further login was tried. Wait until the panel forgets them, then run `keyroll resume`"
)]
pub struct BudgetSpent {
    /// Counted so far.
    pub spent: u32,
    /// The profile's number.
    pub limit: u32,
}

impl WrongLoginBudget {
    /// A budget for a panel that locks the account at `limit` wrong logins; `spent` were counted by earlier runs.
    pub fn new(limit: u32, spent: u32) -> Self {
        Self {
            limit,
            spent: AtomicU32::new(spent),
        }
    }

    /// Counts on from what an earlier run counted, if that is more.
    pub fn at_least(&self, spent: u32) {
        self.spent.fetch_max(spent, Ordering::SeqCst);
    }

    /// Logins counted so far: for the record, so that a later run goes on counting.
    pub fn spent(&self) -> u32 {
        self.spent.load(Ordering::SeqCst)
    }

    pub(super) fn take(&self) -> Result<(), BudgetSpent> {
        let most = self.limit.saturating_sub(1);
        self.spent
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |spent| {
                (spent < most).then_some(spent + 1)
            })
            .map(|_| ())
            .map_err(|spent| BudgetSpent {
                spent,
                limit: self.limit,
            })
    }

    pub(super) fn start_again(&self) {
        self.spent.store(0, Ordering::SeqCst);
    }

    pub(super) fn give_back(&self) {
        self.spent.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_that_would_lock_the_account_is_never_allowed() {
        let budget = WrongLoginBudget::new(3, 0);
        budget.take().unwrap();
        budget.take().unwrap();
        assert_eq!(budget.take(), Err(BudgetSpent { spent: 2, limit: 3 }));
        budget.give_back();
        assert!(budget.take().is_ok());
    }

    #[test]
    fn a_right_login_ends_the_row() {
        let budget = WrongLoginBudget::new(3, 0);
        budget.take().unwrap();
        budget.take().unwrap();
        budget.start_again();
        assert_eq!(budget.spent(), 0);
        budget.at_least(2);
        assert!(budget.take().is_err());
    }

    #[test]
    fn what_an_earlier_run_spent_counts_and_small_limits_allow_nothing() {
        assert!(WrongLoginBudget::new(5, 4).take().is_err());
        assert!(WrongLoginBudget::new(1, 0).take().is_err());
        assert!(WrongLoginBudget::new(0, 0).take().is_err());
    }
}
