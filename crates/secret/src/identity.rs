//! keyroll's own age identity, and sealing with it.
//!
//! Sealing is age encryption (age-encryption.org/v1): an operator with the identity file opens a sealed value or a backup
//! with the stock `age` tool when keyroll is gone.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::iter;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use thiserror::Error;

use crate::{FingerprintKey, Secret};

/// keyroll's identity: the private key that opens everything it sealed.
#[derive(Clone)]
pub struct Identity {
    key: age::x25519::Identity,
}

/// A value that only the identity opens. The journal stores nothing else of a value, so that a plain one cannot slip in.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

/// Everyone who can open what is written: keyroll itself and the operators named in the profile.
pub struct Recipients(Vec<Box<dyn age::Recipient + Send>>);

/// What went wrong with an identity, a recipient or a sealed value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file could not be read, made or synced.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file can be read by others than its owner.
    #[error("{path}: mode {mode:o} lets others read the identity; run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no X25519 identity.
    #[error("{path}: no line starting with AGE-SECRET-KEY-1 that is a valid age identity")]
    NotAnIdentity {
        /// The file.
        path: PathBuf,
    },
    /// A recipient is neither an age nor an SSH public key.
    #[error(
        "recipient {text:?} is neither an age public key (age1…) nor an SSH public key (ssh-ed25519 or ssh-rsa)"
    )]
    NotARecipient {
        /// What the profile says.
        text: String,
    },
    /// A sealed value did not open.
    #[error("a sealed value does not open with the identity in use: {0}")]
    Unsealing(String),
    /// A value could not be sealed.
    #[error("sealing failed: {0}")]
    Sealing(String),
}

impl Identity {
    /// Reads the identity at `path`, or makes one there (mode 0600, file and directory synced) when there is none.
    ///
    /// A file that others can read is refused: whoever read it can open every backup.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let io = |source| IdentityError::Io {
            path: path.to_owned(),
            source,
        };
        match fs::metadata(path) {
            Ok(metadata) => {
                let mode = metadata.mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(IdentityError::Exposed {
                        path: path.to_owned(),
                        mode,
                    });
                }
                let text = zeroize::Zeroizing::new(fs::read_to_string(path).map_err(io)?);
                text.lines()
                    .find_map(|line| age::x25519::Identity::from_str(line.trim()).ok())
                    .map(|key| Self { key })
                    .ok_or_else(|| IdentityError::NotAnIdentity {
                        path: path.to_owned(),
                    })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(error) => Err(io(error)),
        }
    }

    fn create(path: &Path) -> Result<Self, IdentityError> {
        let io = |source| IdentityError::Io {
            path: path.to_owned(),
            source,
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        if !directory.exists() {
            fs::create_dir_all(directory).map_err(io)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(io)?;
        }
        let key = age::x25519::Identity::generate();
        // Written beside and linked into place: a crash never leaves half an identity under the real name, and a
        // concurrent first use never replaces one that has already sealed something.
        let beside = directory.join(format!(".identity.{}", std::process::id()));
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .map_err(io)?;
        let text = zeroize::Zeroizing::new(format!(
            "# keyroll's own age identity: opens its sealed values and its backups. Keep a copy off this host.\n# public key: {}\n{}\n",
            key.to_public(),
            key.to_string().expose_secret()
        ));
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(io)?;
        let linked = fs::hard_link(&beside, path);
        let _ = fs::remove_file(&beside);
        match linked {
            Ok(()) => {
                fs::File::open(directory)
                    .and_then(|d| d.sync_all())
                    .map_err(io)?;
                Ok(Self { key })
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::load_or_create(path)
            }
            Err(error) => Err(io(error)),
        }
    }

    /// The public key, `age1…`.
    pub fn public(&self) -> String {
        self.key.to_public().to_string()
    }

    /// Encrypts `plain` to this identity. Small values only: everything is held in memory.
    pub fn seal(&self, plain: &[u8]) -> Result<Sealed, IdentityError> {
        age::encrypt(&self.key.to_public(), plain)
            .map(Sealed)
            .map_err(|e| IdentityError::Sealing(e.to_string()))
    }

    /// [`Identity::seal`] for a secret value.
    pub fn seal_secret(&self, secret: &Secret) -> Result<Sealed, IdentityError> {
        self.seal(secret.expose().as_bytes())
    }

    /// [`Identity::open`] for a secret value.
    pub fn open_secret(&self, sealed: &Sealed) -> Result<Secret, IdentityError> {
        let plain = self.open(sealed)?;
        std::str::from_utf8(&plain)
            .map(Secret::new)
            .map_err(|e| IdentityError::Unsealing(e.to_string()))
    }

    /// Decrypts what [`Identity::seal`] made; the result is wiped on drop.
    pub fn open(&self, sealed: &Sealed) -> Result<zeroize::Zeroizing<Vec<u8>>, IdentityError> {
        age::decrypt(&self.key, &sealed.0)
            .map(zeroize::Zeroizing::new)
            .map_err(|e| IdentityError::Unsealing(e.to_string()))
    }

    /// A reader of the plain text of an age file.
    pub fn reader<'a, R: Read + 'a>(
        &self,
        sealed: R,
    ) -> Result<impl Read + use<'a, R>, IdentityError> {
        let decryptor =
            age::Decryptor::new(sealed).map_err(|e| IdentityError::Unsealing(e.to_string()))?;
        decryptor
            .decrypt(iter::once(&self.key as &dyn age::Identity))
            .map_err(|e| IdentityError::Unsealing(e.to_string()))
    }

    /// The key of this host's fingerprints: HMAC-SHA-256 of a fixed label under the identity, so that there is one file to
    /// keep, and fingerprints stay comparable as long as it does.
    pub fn fingerprint_key(&self) -> FingerprintKey {
        let text = self.key.to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(text.expose_secret().as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(b"keyroll fingerprint key v1");
        FingerprintKey::from_bytes(mac.finalize().into_bytes().into())
    }
}

impl Sealed {
    /// Bytes as they were stored; nothing is checked before they are opened.
    pub fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The age file, for storing.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.public())
    }
}

impl Recipients {
    /// This identity, and each of `operators` (age or SSH public keys).
    pub fn new<'a>(
        own: &Identity,
        operators: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, IdentityError> {
        let mut all = Self::operators(operators)?;
        all.0.push(Box::new(own.key.to_public()));
        Ok(all)
    }

    /// Operators alone: keyroll itself cannot open what is written to them.
    pub fn operators<'a>(
        operators: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, IdentityError> {
        let parse = |text: &str| -> Result<Box<dyn age::Recipient + Send>, IdentityError> {
            if let Ok(key) = age::x25519::Recipient::from_str(text) {
                return Ok(Box::new(key));
            }
            if let Ok(key) = age::ssh::Recipient::from_str(text) {
                return Ok(Box::new(key));
            }
            Err(IdentityError::NotARecipient {
                text: text.to_owned(),
            })
        };
        operators
            .into_iter()
            .map(|text| parse(text.trim()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether there is nobody to write to.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A writer that encrypts into `sink`. Call `finish` on it, then sync the sink: without `finish` the file is cut off.
    pub fn writer<W: Write>(&self, sink: W) -> Result<age::stream::StreamWriter<W>, IdentityError> {
        let recipients = self.0.iter().map(|r| &**r as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients)
            .map_err(|e| IdentityError::Sealing(e.to_string()))?;
        encryptor
            .wrap_output(sink)
            .map_err(|e| IdentityError::Sealing(e.to_string()))
    }
}

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recipients({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_made_once_private_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keyroll/identity");
        let first = Identity::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.public(), second.public());
        assert_eq!(
            &*second.open(&first.seal(b"value").unwrap()).unwrap(),
            b"value"
        );
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn an_identity_that_others_can_read_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity");
        Identity::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn another_identity_opens_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let one = Identity::load_or_create(&directory.path().join("1")).unwrap();
        let two = Identity::load_or_create(&directory.path().join("2")).unwrap();
        assert!(matches!(
            two.open(&one.seal(b"x").unwrap()),
            Err(IdentityError::Unsealing(_))
        ));
    }

    #[test]
    fn a_cut_off_stream_does_not_read_as_whole() {
        let directory = tempfile::tempdir().unwrap();
        let own = Identity::load_or_create(&directory.path().join("1")).unwrap();
        let mut writer = Recipients::new(&own, [])
            .unwrap()
            .writer(Vec::new())
            .unwrap();
        writer.write_all(&vec![7; 200_000]).unwrap();
        let mut sealed = writer.finish().unwrap();
        sealed.truncate(sealed.len() - 100_000);
        let mut plain = Vec::new();
        assert!(
            own.reader(&sealed[..])
                .unwrap()
                .read_to_end(&mut plain)
                .is_err()
        );
    }

    #[test]
    fn a_recipient_that_is_no_key_is_named() {
        let error = Recipients::operators(["age1nonsense"]).unwrap_err();
        assert!(error.to_string().contains("age1nonsense"));
    }
}
