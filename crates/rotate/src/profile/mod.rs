//! Profiles: one stack, described as data.
//!
//! A profile is TOML. One that `extends` a built-in one says only what differs; flags are laid over both. Whatever layer a
//! mistake is in, the error names its file and line and what was expected, and nothing is done.

mod check;
mod integration;
mod layers;
mod spec;

pub use integration::AlertSpec;
pub use integration::ApiSpec;
pub use integration::Day;
pub use integration::MailTlsSpec;
pub use integration::MakeSpec;
pub use integration::ScheduleSpec;
pub use integration::ScopeSpec;
pub use integration::SettingsSpec;
pub use integration::WebhookSpec;
pub use integration::WindowSpec;
pub use layers::ProfileError;
pub use spec::AdminSpec;
pub use spec::BackupSpec;
pub use spec::ComposeSpec;
pub use spec::DatabaseSpec;
pub use spec::FormatSpec;
pub use spec::HttpSpec;
pub use spec::LimitSpec;
pub use spec::LoginSpec;
pub use spec::PathSpec;
pub use spec::Profile;
pub use spec::RefreshSpec;
pub use spec::SecretKind;
pub use spec::SecretSpec;
pub use spec::SeedSpec;
pub use spec::SessionSpec;
pub use spec::Source;
pub use spec::SummarySpec;
pub use spec::TokenSpec;

use layers::{Layer, Layers};
use std::path::Path;

/// The profiles that come with keyroll, by name.
pub const BUILT_IN: &[(&str, &str)] = &[(
    "proxpanel",
    include_str!("../../../../profiles/proxpanel.toml"),
)];

impl Profile {
    /// Whether a profile that is called so is a file, and not a built-in one: it holds a `/` or ends in `.toml`.
    pub fn is_path(name_or_path: &str) -> bool {
        let extension = Path::new(name_or_path).extension();
        name_or_path.contains('/') || extension.is_some_and(|e| e.eq_ignore_ascii_case("toml"))
    }

    /// Loads a profile: `name_or_path` is a built-in name, or a path ([`Profile::is_path`]).
    /// `overrides` are `dotted.key=value` texts, the value in TOML or, where that does not parse, taken as a string.
    ///
    /// Reads the file; changes nothing.
    pub fn load(name_or_path: &str, overrides: &[String]) -> Result<Self, ProfileError> {
        let first = if Self::is_path(name_or_path) {
            Layer::read(Path::new(name_or_path))?
        } else {
            Layer::built_in(name_or_path)?
        };
        let mut layers = Layers::default();
        if let Some(base) = first.extends()? {
            layers.push(Layer::built_in(&base)?);
        }
        layers.push(first);
        for text in overrides {
            layers.push(Layer::flag(text)?);
        }
        let mut profile: Self = layers.deserialize()?;
        profile.settle();
        match check::problem(&profile) {
            Some((key, expected)) => Err(layers.complain(&key, &expected)),
            None => Ok(profile),
        }
    }
}
