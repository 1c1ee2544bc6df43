//! The steps of a rotation, one file each, and the plan that they make.

mod admin_password;
mod app_sessions;
mod backup;
mod baseline;
mod commit;
mod database_password;
mod database_sessions;
mod env_candidate;
mod env_file;
mod old_token;
mod recreate;
mod regenerate;
mod settings;
mod summary;
pub(crate) mod token;
mod trail;
mod verify;

use std::sync::Arc;

use keyroll_saga::{Compensate, Plan, PlanStep, Shape, ShapeStep, Step};

use crate::about::About;
use crate::profile::{Profile, SecretKind, SecretSpec};
use crate::world::World;

/// The journal's keys. Renaming one is a change of the stored format.
pub(crate) mod names {
    pub(crate) const BACKUP: &str = "backup";
    pub(crate) const ENV_CANDIDATE: &str = "env-candidate";
    pub(crate) const BASELINE: &str = "baseline";
    pub(crate) const ENV_FILE: &str = "env-file";
    pub(crate) const DATABASE_PASSWORD: &str = "database-password";
    pub(crate) const RECREATE: &str = "recreate";
    pub(crate) const ADMIN_PASSWORD: &str = "admin-password";
    pub(crate) const APP_SESSIONS: &str = "app-sessions";
    pub(crate) const DATABASE_SESSIONS: &str = "database-sessions";
    pub(crate) const SETTINGS: &str = "settings";
    pub(crate) const TOKEN: &str = "token";
    pub(crate) const REGENERATE: &str = "regenerate";
    pub(crate) const TOKEN_SETTING: &str = "token-setting";
    pub(crate) const OLD_TOKEN: &str = "old-token";
    pub(crate) const VERIFY: &str = "verify";
    pub(crate) const COMMIT: &str = "commit";
    pub(crate) const TRAIL: &str = "trail";
    pub(crate) const SUMMARY: &str = "summary";
}

/// Sealed names of the admin's stored hash, around the seed.
pub(crate) mod hashes {
    pub(crate) const BEFORE: &str = "admin/hash-before";
    pub(crate) const AFTER: &str = "admin/hash-after";
}

/// One step before the point of no return, as data: what it waits for on the way there and on the way back.
struct Row {
    name: &'static str,
    needs: &'static [&'static str],
    undo_after: &'static [&'static str],
    planned: fn(&Scope) -> bool,
}

/// What decides which steps a rotation has.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question that a row asks"
)]
struct Scope {
    rotates: Vec<SecretKind>,
    /// The application keeps its sessions in a table that the profile names.
    sessions: bool,
    /// Some of it stands in the env file.
    env: bool,
    /// Some of it stands in the application's settings.
    settings: bool,
    /// Grace windows are ended, and nothing is rotated.
    finalizes: bool,
    /// A token that has been in a grace window is deleted.
    old_tokens: bool,
    /// A token is made, and nothing is rotated.
    makes: bool,
    /// No token is made: the one in force is given another value in place.
    regenerates: bool,
}

impl Scope {
    fn of(about: &About) -> Self {
        Self {
            rotates: if about.finalizes {
                vec![]
            } else {
                about.secrets.iter().map(|s| s.kind).collect()
            },
            sessions: about.profile.sessions.is_some(),
            env: about.secrets.iter().any(|s| s.env_key().is_some()) && !about.finalizes,
            settings: about.secrets.iter().any(|s| s.setting.is_some()),
            finalizes: about.finalizes,
            old_tokens: about.finalizes && about.secrets.iter().any(|s| s.retires.is_some()),
            makes: about.makes.is_some(),
            regenerates: about.makes.as_ref().is_some_and(|m| m.setting.is_some()),
        }
    }

    fn rotates(&self, kind: SecretKind) -> bool {
        self.rotates.contains(&kind)
    }
}

/// The safe order.
///
/// Forward: nothing changes before the backup is proven; file and database follow one another directly; containers are
/// recreated once for both. Backward: file and database first, then containers, and only when those run is there an
/// application whose admin and sessions can be put back; the old set is verified last.
const ROWS: &[Row] = &[
    Row {
        name: names::BACKUP,
        needs: &[],
        undo_after: &[],
        // What a finalize changes is sealed with it, and a new token changes nothing.
        planned: |s| !s.finalizes && !s.makes,
    },
    Row {
        name: names::ENV_CANDIDATE,
        needs: &[],
        undo_after: &[],
        planned: |s| s.env,
    },
    Row {
        name: names::BASELINE,
        needs: &[names::BACKUP, names::ENV_CANDIDATE],
        undo_after: &[
            names::BACKUP,
            names::ENV_CANDIDATE,
            names::ENV_FILE,
            names::DATABASE_PASSWORD,
            names::RECREATE,
            names::ADMIN_PASSWORD,
            names::APP_SESSIONS,
            names::DATABASE_SESSIONS,
            names::SETTINGS,
            names::TOKEN,
            names::VERIFY,
        ],
        planned: |_| true,
    },
    Row {
        name: names::ENV_FILE,
        needs: &[names::BASELINE],
        undo_after: &[],
        planned: |s| s.env,
    },
    Row {
        name: names::DATABASE_PASSWORD,
        needs: &[names::ENV_FILE],
        undo_after: &[],
        planned: |s| s.rotates(SecretKind::PostgresPassword),
    },
    Row {
        name: names::RECREATE,
        needs: &[names::ENV_FILE, names::DATABASE_PASSWORD],
        undo_after: &[names::ENV_FILE, names::DATABASE_PASSWORD],
        planned: |s| s.env,
    },
    Row {
        name: names::ADMIN_PASSWORD,
        needs: &[names::RECREATE],
        undo_after: &[names::RECREATE],
        planned: |s| s.rotates(SecretKind::AdminPassword),
    },
    Row {
        name: names::APP_SESSIONS,
        // Whoever knows the old password could otherwise open one more session after the revocation.
        needs: &[names::RECREATE, names::ADMIN_PASSWORD],
        undo_after: &[names::RECREATE, names::ADMIN_PASSWORD],
        planned: |s| s.sessions && s.rotates.iter().any(|kind| kind.ends_sessions()),
    },
    Row {
        name: names::DATABASE_SESSIONS,
        needs: &[names::RECREATE],
        undo_after: &[],
        planned: |s| s.rotates(SecretKind::PostgresPassword),
    },
    Row {
        name: names::TOKEN,
        needs: &[names::BASELINE],
        undo_after: &[],
        planned: |s| s.makes && !s.regenerates,
    },
    Row {
        name: names::SETTINGS,
        // Last of the changes: whatever else fails, no provider's events have met it.
        needs: &[
            names::BASELINE,
            names::RECREATE,
            names::ADMIN_PASSWORD,
            names::APP_SESSIONS,
            names::DATABASE_SESSIONS,
        ],
        undo_after: &[],
        planned: |s| s.settings,
    },
    Row {
        name: names::VERIFY,
        needs: &[
            names::BASELINE,
            names::RECREATE,
            names::ADMIN_PASSWORD,
            names::APP_SESSIONS,
            names::DATABASE_SESSIONS,
            names::SETTINGS,
            names::TOKEN,
        ],
        undo_after: &[],
        planned: |_| true,
    },
];

/// The plan of a rotation.
pub(crate) fn plan(world: &Arc<World>) -> Plan {
    let before = shape(&world.about).before.into_iter();
    let before = before.map(|step| PlanStep {
        needs: step.needs.into_iter().collect(),
        undo_after: step.undo_after.into_iter().collect(),
        step: make(step.name.as_str(), world),
    });
    let before = before.collect();
    let after = after(&Scope::of(&world.about)).iter();
    let after = after.map(|name| -> Box<dyn Step> {
        let world = world.clone();
        match *name {
            names::TOKEN_SETTING => Box::new(regenerate::TokenSetting { world }),
            names::COMMIT => Box::new(commit::Commit { world }),
            names::OLD_TOKEN => Box::new(old_token::OldToken { world }),
            names::TRAIL => Box::new(trail::Trail { world }),
            _ => Box::new(summary::Summary { world }),
        }
    });
    let after = after.collect();
    let world = world.clone();
    let pivot: Box<dyn Step> = match pivot(&Scope::of(&world.about)) {
        names::REGENERATE => Box::new(regenerate::Regenerate { world }),
        _ => Box::new(commit::Commit { world }),
    };
    Plan {
        before,
        pivot,
        after,
    }
}

/// The plan's shape alone, for reading a rotation's state without its values.
pub(crate) fn shape(about: &About) -> Shape {
    shape_of(&Scope::of(about))
}

impl Profile {
    /// The shape of the plan that a rotation of these secrets has, by names as [`Profile::select`] gives them. Without values,
    /// systems or a stack: for telling it, and for trying the engine on it.
    pub fn plan_shape(&self, names: &[String]) -> Shape {
        let secrets: Vec<&SecretSpec> = names.iter().filter_map(|n| self.secrets.get(n)).collect();
        shape_of(&Scope {
            rotates: secrets.iter().map(|s| s.kind).collect(),
            sessions: self.sessions.is_some(),
            env: secrets.iter().any(|s| s.env_key().is_some()),
            settings: secrets.iter().any(|s| s.setting.is_some()),
            finalizes: false,
            old_tokens: false,
            makes: false,
            regenerates: false,
        })
    }
}

fn shape_of(scope: &Scope) -> Shape {
    let planned = rows(scope);
    let within = |names: &'static [&'static str]| {
        let there = names
            .iter()
            .filter(|n| planned.iter().any(|r| r.name == **n));
        there.map(|n| (*n).into()).collect()
    };
    Shape {
        before: planned
            .iter()
            .map(|r| ShapeStep {
                name: r.name.into(),
                needs: within(r.needs),
                undo_after: within(r.undo_after),
            })
            .collect(),
        pivot: pivot(scope).into(),
        after: after(scope).iter().map(|n| (*n).into()).collect(),
    }
}

/// The point of no return.
fn pivot(scope: &Scope) -> &'static str {
    if scope.regenerates {
        names::REGENERATE
    } else {
        names::COMMIT
    }
}

/// The steps after the point of no return. What ends a grace window or makes a token has nothing to hand over.
fn after(scope: &Scope) -> &'static [&'static str] {
    if scope.regenerates {
        &[names::TOKEN_SETTING, names::COMMIT, names::TRAIL]
    } else if scope.old_tokens {
        &[names::OLD_TOKEN, names::TRAIL]
    } else if scope.finalizes || scope.makes {
        &[names::TRAIL]
    } else {
        &[names::TRAIL, names::SUMMARY]
    }
}

fn rows(scope: &Scope) -> Vec<&'static Row> {
    ROWS.iter().filter(|r| (r.planned)(scope)).collect()
}

/// The steps in an order that they may run in; each inner list runs side by side.
pub(crate) fn order(about: &About) -> Vec<Vec<String>> {
    let mut open = rows(&Scope::of(about));
    let mut done: Vec<&str> = vec![];
    let mut order = vec![];
    while !open.is_empty() {
        let still: Vec<&str> = open.iter().map(|r| r.name).collect();
        let (now, later): (Vec<&Row>, Vec<&Row>) = open.into_iter().partition(|r| {
            r.needs
                .iter()
                .all(|n| !still.contains(n) || done.contains(n))
        });
        done.extend(now.iter().map(|r| r.name));
        order.push(now.iter().map(|r| r.name.to_owned()).collect());
        open = later;
    }
    let scope = Scope::of(about);
    let last = [pivot(&scope)];
    let last = last.iter().chain(after(&scope));
    order.extend(last.map(|n| vec![(*n).to_owned()]));
    order
}

fn make(name: &str, world: &Arc<World>) -> Box<dyn Compensate> {
    let world = world.clone();
    match name {
        names::BACKUP => Box::new(backup::Backup { world }),
        names::ENV_CANDIDATE => Box::new(env_candidate::EnvCandidate { world }),
        names::BASELINE => Box::new(baseline::Baseline { world }),
        names::ENV_FILE => Box::new(env_file::EnvFileStep { world }),
        names::DATABASE_PASSWORD => Box::new(database_password::DatabasePassword { world }),
        names::RECREATE => Box::new(recreate::Recreate { world }),
        names::ADMIN_PASSWORD => Box::new(admin_password::AdminPassword { world }),
        names::APP_SESSIONS => Box::new(app_sessions::AppSessions { world }),
        names::DATABASE_SESSIONS => Box::new(database_sessions::DatabaseSessions { world }),
        names::SETTINGS => Box::new(settings::Settings { world }),
        names::TOKEN => Box::new(token::Token { world }),
        _ => Box::new(verify::Verify { world }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> &'static Row {
        ROWS.iter().find(|r| r.name == name).expect("a step")
    }

    #[test]
    fn sessions_are_revoked_only_when_the_old_admin_password_opens_no_new_one() {
        assert!(
            row(names::APP_SESSIONS)
                .needs
                .contains(&names::ADMIN_PASSWORD)
        );
    }

    #[test]
    fn every_step_is_undone_before_the_old_set_is_verified() {
        let before = row(names::BASELINE).undo_after;
        for other in ROWS.iter().filter(|r| r.name != names::BASELINE) {
            assert!(before.contains(&other.name), "{}", other.name);
        }
    }
}
