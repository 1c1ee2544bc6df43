//! What is due, since when, who has to do something about it, and whether now is a time for it.
//!
//! A secret's age counts from the rotation that put it in force. One that keyroll has never rotated is of an unknown age, and due. What a provider makes needs a
//! person; everything else can be rotated while nobody is there, in the stack's maintenance window if it has one.

use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::error::RotateError;
use crate::operations::Keyroll;
use crate::profile::{Day, ScheduleSpec, SecretSpec, WindowSpec};
use crate::report::{Cadence, DueReport, DueState, Needs, SecretStatus};
use crate::status;

/// When this secret is due; `None` where the profile gives it no interval.
pub(crate) fn of(
    spec: &SecretSpec,
    schedule: &ScheduleSpec,
    rotated_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<Cadence> {
    let interval_days = spec.interval_days?;
    let days = |n: u32| SignedDuration::from_hours(24 * i64::from(n));
    let due_at = rotated_at.map(|at| at + days(interval_days));
    let state = match due_at {
        None => DueState::NeverRotated,
        Some(at) if now >= at + days(schedule.overdue_days) => DueState::Overdue,
        Some(at) if now >= at => DueState::Due,
        Some(_) => DueState::Fresh,
    };
    Some(Cadence {
        interval_days,
        due_at,
        state,
        needs: if spec.kind.comes_from_outside() && spec.make.is_none() {
            Needs::Value
        } else {
            Needs::Nothing
        },
    })
}

fn weekday(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

impl WindowSpec {
    /// How long it is.
    pub fn minutes(&self) -> i64 {
        let of_day =
            |time: jiff::civil::Time| 60 * i64::from(time.hour()) + i64::from(time.minute());
        let length = of_day(self.to) - of_day(self.from);
        if length > 0 { length } else { length + 24 * 60 }
    }

    /// Whether this moment is in it.
    pub(crate) fn holds(&self, now: DateTime) -> bool {
        let begins_on =
            |day: Weekday| self.days.is_empty() || self.days.iter().any(|d| weekday(*d) == day);
        let time = now.time();
        if self.from < self.to {
            return begins_on(now.weekday()) && self.from <= time && time < self.to;
        }
        // Over midnight: it has begun today, or yesterday.
        (begins_on(now.weekday()) && self.from <= time)
            || (begins_on(now.weekday().previous()) && time < self.to)
    }
}

impl std::fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let days: Vec<String> = self.days.iter().map(|d| format!("{d:?}")).collect();
        let days = if days.is_empty() {
            "every day".to_owned()
        } else {
            days.join(", ")
        };
        let hour = |time: jiff::civil::Time| time.strftime("%H:%M").to_string();
        write!(f, "{days} {} to {}", hour(self.from), hour(self.to))
    }
}

impl Keyroll {
    /// What is due at this moment, in the host's time zone, and what of it can be rotated without a person.
    pub fn due(&self, now: Timestamp) -> Result<DueReport, RotateError> {
        let journal = self.journal()?;
        let mut all = vec![];
        for name in self.profile.secrets.keys() {
            all.push(status::secret_status(
                journal.as_ref(),
                &self.profile,
                name,
                now,
            )?);
        }
        let local = now.to_zoned_datetime(TimeZone::system()).datetime();
        Ok(report(&all, &self.profile.schedule, local))
    }
}

fn report(all: &[SecretStatus], schedule: &ScheduleSpec, now: DateTime) -> DueReport {
    let mut report = DueReport {
        rotate: vec![],
        needs_value: vec![],
        windows_over: vec![],
        not_before: schedule
            .window
            .as_ref()
            .filter(|window| !window.holds(now))
            .map(ToString::to_string),
    };
    for secret in all {
        if secret.window.as_ref().is_some_and(|window| window.over) {
            report.windows_over.push(secret.name.clone());
        }
        match &secret.cadence {
            Some(cadence) if cadence.state != DueState::Fresh => match cadence.needs {
                Needs::Nothing => report.rotate.push(secret.name.clone()),
                Needs::Value => report.needs_value.push(secret.name.clone()),
            },
            _ => {}
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_secret_is_due_after_its_interval_and_overdue_a_week_later() {
        let interval = "secrets.JWT_SECRET.interval_days=30".to_owned();
        let profile = Profile::load("proxpanel", &[interval]).unwrap();
        let spec = &profile.secrets["JWT_SECRET"];
        let rotated = at("2026-11-01T12:00:00Z");
        let state = |now: &str| {
            of(spec, &profile.schedule, Some(rotated), at(now))
                .unwrap()
                .state
        };
        assert_eq!(state("2026-12-01T11:59:59Z"), DueState::Fresh);
        assert_eq!(state("2026-12-01T12:00:00Z"), DueState::Due);
        assert_eq!(state("2026-12-08T11:59:59Z"), DueState::Due);
        assert_eq!(state("2026-12-08T12:00:00Z"), DueState::Overdue);
        // A clock that went back makes nothing due.
        assert_eq!(state("2026-10-01T00:00:00Z"), DueState::Fresh);
        let never = of(spec, &profile.schedule, None, at("2026-12-01T00:00:00Z")).unwrap();
        assert_eq!(never.state, DueState::NeverRotated);
        let mut free = spec.clone();
        free.interval_days = None;
        assert!(
            of(
                &free,
                &profile.schedule,
                Some(rotated),
                at("2030-01-01T00:00:00Z")
            )
            .is_none()
        );
    }

    #[test]
    fn a_window_holds_its_hours_and_may_go_over_midnight() {
        let window = |days: &[Day], from: &str, to: &str| WindowSpec {
            days: days.to_vec(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        };
        let holds = |window: &WindowSpec, local: &str| window.holds(local.parse().unwrap());
        let sunday = window(&[Day::Sun], "03:00", "05:00");
        // 29 November 2026 is a Sunday.
        for (local, inside) in [
            ("2026-11-29T02:59:59", false),
            ("2026-11-29T03:00:00", true),
            ("2026-11-29T04:59:59", true),
            ("2026-11-29T05:00:00", false),
            ("2026-11-30T04:00:00", false),
        ] {
            assert_eq!(holds(&sunday, local), inside, "{local}");
        }
        let late = window(&[Day::Sat], "23:00", "01:00");
        for (local, inside) in [
            ("2026-11-28T22:59:00", false),
            ("2026-11-28T23:30:00", true),
            ("2026-11-29T00:59:00", true),
            ("2026-11-29T01:00:00", false),
            ("2026-11-28T00:30:00", false),
        ] {
            assert_eq!(holds(&late, local), inside, "{local}");
        }
        assert!(holds(&window(&[], "00:00", "23:59"), "2026-11-26T12:00:00"));
    }

    #[test]
    fn what_needs_a_person_is_never_rotated_alone_and_nothing_is_out_of_the_window() {
        let layers = [
            "secrets.JWT_SECRET.interval_days=30",
            "secrets.PAYSTACK_SECRET.interval_days=90",
        ];
        let profile = Profile::load("proxpanel", &layers.map(str::to_owned)).unwrap();
        let now = at("2026-11-29T04:00:00Z");
        let status = |name: &str, rotated: Option<&str>| {
            let mut status = status::secret_status(None, &profile, name, now).unwrap();
            let rotated = rotated.map(at);
            status.cadence = of(&profile.secrets[name], &profile.schedule, rotated, now);
            status
        };
        let mut schedule = profile.schedule.clone();
        let all = [
            status("JWT_SECRET", Some("2026-10-01T00:00:00Z")),
            status("PAYSTACK_SECRET", None),
        ];
        let local = now.to_zoned_datetime(TimeZone::UTC).datetime();
        let due = report(&all, &schedule, local);
        assert_eq!(due.rotate, ["JWT_SECRET"]);
        assert_eq!(due.needs_value, ["PAYSTACK_SECRET"]);
        assert_eq!(due.not_before, None);
        schedule.window = Some(WindowSpec {
            days: vec![Day::Mon],
            from: "03:00".parse().unwrap(),
            to: "05:00".parse().unwrap(),
        });
        let due = report(&all, &schedule, local);
        assert_eq!(due.not_before.as_deref(), Some("Mon 03:00 to 05:00"));
        let fresh = [status("JWT_SECRET", Some("2026-11-20T00:00:00Z"))];
        assert!(report(&fresh, &schedule, local).rotate.is_empty());
    }
}
