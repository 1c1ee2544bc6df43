//! Which compose project a profile means, as the running containers' labels tell.
//!
//! The name of a project is not in its file: it comes from `-p`, from an environment variable, from `name:`, or from the
//! folder. A tool that guesses wrongly starts a twin with an empty volume beside the real stack. compose writes into labels
//! what each container was made from, so the containers are asked, and what they say is compared with the profile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::container::Container;
use super::engine::Engine;
use super::error::EngineError;

/// What a profile says about a compose project. Relative paths are relative to `root`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The stack's root directory.
    pub root: PathBuf,
    /// The compose files, in order.
    pub config_files: Vec<PathBuf>,
    /// What is given to compose as `--env-file`, in order. The single file `.env` of the project directory stands for none.
    pub env_files: Vec<PathBuf>,
    /// The project's name, where it must be a certain one.
    pub project: Option<String>,
}

/// A compose project as its containers' labels describe it. Paths are as compose wrote them, not resolved: a symbolic link
/// stays one, so that calling compose again with them gives the same labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// Its directory (`--project-directory`).
    pub working_dir: PathBuf,
    /// Its files, in order (`-f`).
    pub config_files: Vec<PathBuf>,
    /// What it was started with as `--env-file`, in order. Empty: nothing, and compose reads `.env` if there is one.
    pub env_files: Vec<PathBuf>,
    /// The version of compose that made its containers; the newest where they differ.
    pub made_by: String,
}

/// The containers do not tell one project that agrees with the profile. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// A file that the profile names is not there.
    #[error("{}: {reason}; the profile names it. Correct the profile, or bring the file back", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// No container was made from these files.
    #[error(
        "no container was made from {files}; other projects on this engine: {others}. Start the stack, or correct the profile (`docker compose ls -a` shows what runs)"
    )]
    NotRunning {
        /// The files.
        files: String,
        /// Name and files of each other project.
        others: String,
    },
    /// Several projects were made from the same files.
    #[error(
        "several projects were made from {files}: {}; name one in the profile (`[compose] project = …`)",
        projects.join(", ")
    )]
    Several {
        /// The files.
        files: String,
        /// Their names.
        projects: Vec<String>,
    },
    /// The project has another name than the profile says.
    #[error(
        "the containers made from {files} belong to project {}, and the profile says {wanted}; correct the profile, or take the wrong stack down",
        found.join(", ")
    )]
    OtherName {
        /// The files.
        files: String,
        /// As in the profile.
        wanted: String,
        /// As in the labels.
        found: Vec<String>,
    },
    /// Containers of the project were made from other files.
    #[error(
        "container {container} of project {project} was made from {found}, and the profile says {wanted}; recreate it from the right files, or correct the profile"
    )]
    OtherFiles {
        /// The project.
        project: String,
        /// The container's name.
        container: String,
        /// Files in the label.
        found: String,
        /// Files in the profile.
        wanted: String,
    },
    /// The stack was started with other env files.
    #[error(
        "container {container} of project {project} was made with {found}, and the profile says {wanted}; compose would read other values. Correct the profile, or recreate the stack with the right env file"
    )]
    OtherEnvFiles {
        /// The project.
        project: String,
        /// The container's name.
        container: String,
        /// Env files in the label.
        found: String,
        /// Env files in the profile.
        wanted: String,
    },
    /// Containers of one project were made with different directories.
    #[error(
        "containers of project {project} disagree about the project directory: {found}; recreate the stack from one place first"
    )]
    Disagree {
        /// The project.
        project: String,
        /// Each directory with its containers.
        found: String,
    },
    /// A label that compose always writes is missing.
    #[error(
        "container {container} of project {project} has no label {label}; recreate it with `docker compose up -d`"
    )]
    NoLabel {
        /// The project.
        project: String,
        /// The container's name.
        container: String,
        /// The label.
        label: &'static str,
    },
    /// The engine did not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Project {
    /// Finds the project whose containers were made from the profile's compose files, and compares what its labels say with
    /// the profile. One-off containers are not looked at.
    pub async fn discover(engine: &Engine, wanted: &Wanted) -> Result<Self, DiscoverError> {
        let containers = engine.all_containers().await?;
        Self::among(&containers, wanted)
    }

    /// [`Project::discover`], in a look at all containers of the engine that the caller has. Resolves paths on this machine's file
    /// system.
    pub fn among(containers: &[Container], wanted: &Wanted) -> Result<Self, DiscoverError> {
        let files = existing(&wanted.root, &wanted.config_files)?;
        let env_files = existing(&wanted.root, &wanted.env_files)?;
        let mut made: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
        for container in containers
            .iter()
            .filter(|c| !c.one_off && !c.project.is_empty())
        {
            made.entry(&container.project).or_default().push(container);
        }
        let from_these = |c: &Container| same_files(c, &c.config_files, &files, &wanted.root);
        let candidates: Vec<String> = made
            .iter()
            .filter(|(_, all)| all.iter().any(|c| from_these(c)))
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let name = match (&wanted.project, candidates.as_slice()) {
            (Some(name), _) if candidates.contains(name) => name.clone(),
            (Some(name), _) if made.contains_key(name.as_str()) => {
                let other = made[name.as_str()][0];
                return Err(DiscoverError::OtherFiles {
                    project: name.clone(),
                    container: other.name.clone(),
                    found: list(&other.config_files),
                    wanted: list(&files),
                });
            }
            (Some(name), [_, ..]) => {
                return Err(DiscoverError::OtherName {
                    files: list(&files),
                    wanted: name.clone(),
                    found: candidates,
                });
            }
            (None, [name]) => name.clone(),
            (None, [_, _, ..]) => {
                return Err(DiscoverError::Several {
                    files: list(&files),
                    projects: candidates,
                });
            }
            (_, []) => {
                return Err(DiscoverError::NotRunning {
                    files: list(&files),
                    others: others(&made),
                });
            }
        };
        describe(&name, &made[name.as_str()], wanted, &files, &env_files)
    }

    /// Whether compose 1 made the containers, which writes no label for env files.
    pub fn made_by_v1(&self) -> bool {
        self.made_by.starts_with("1.")
    }
}

/// The project, once every container of it agrees.
fn describe(
    name: &str,
    containers: &[&Container],
    wanted: &Wanted,
    files: &[PathBuf],
    env_files: &[PathBuf],
) -> Result<Project, DiscoverError> {
    let mut directories: BTreeMap<PathBuf, BTreeSet<&str>> = BTreeMap::new();
    for container in containers {
        if !same_files(container, &container.config_files, files, &wanted.root) {
            return Err(DiscoverError::OtherFiles {
                project: name.to_owned(),
                container: container.name.clone(),
                found: list(&container.config_files),
                wanted: list(files),
            });
        }
        let Some(directory) = &container.working_dir else {
            return Err(DiscoverError::NoLabel {
                project: name.to_owned(),
                container: container.name.clone(),
                label: super::labels::WORKING_DIR,
            });
        };
        if !env_files_agree(container, directory, env_files, &wanted.root) {
            return Err(DiscoverError::OtherEnvFiles {
                project: name.to_owned(),
                container: container.name.clone(),
                found: if container.env_files.is_empty() {
                    format!(
                        "no --env-file (so compose reads {})",
                        directory.join(".env").display()
                    )
                } else {
                    format!("--env-file {}", list(&container.env_files))
                },
                wanted: if env_files.is_empty() {
                    "none".to_owned()
                } else {
                    format!("--env-file {}", list(env_files))
                },
            });
        }
        directories
            .entry(resolved(directory))
            .or_default()
            .insert(&container.name);
    }
    if directories.len() > 1 {
        let mut found = String::new();
        for (directory, names) in &directories {
            let names: Vec<&str> = names.iter().copied().collect();
            let gap = if found.is_empty() { "" } else { "; " };
            let _ = write!(found, "{gap}{} ({})", directory.display(), names.join(", "));
        }
        return Err(DiscoverError::Disagree {
            project: name.to_owned(),
            found,
        });
    }
    let newest = containers
        .iter()
        .max_by_key(|c| (c.created_at, &c.id))
        .expect("a candidate has a container");
    let made_by = newest.compose_version.clone().unwrap_or_default();
    let v1 = made_by.starts_with("1.");
    Ok(Project {
        name: name.to_owned(),
        working_dir: newest.working_dir.clone().unwrap_or_default(),
        // Version 1 writes paths as they were typed, from a directory that it does not write.
        config_files: if v1 {
            files.to_vec()
        } else {
            newest.config_files.clone()
        },
        env_files: if v1 {
            env_files.to_vec()
        } else {
            newest.env_files.clone()
        },
        made_by,
    })
}

/// Whether the label's files are the wanted ones, in order, however each is written.
fn same_files(container: &Container, label: &[PathBuf], wanted: &[PathBuf], root: &Path) -> bool {
    let from = container.working_dir.as_deref();
    label.len() == wanted.len()
        && label.iter().zip(wanted).all(|(found, wanted)| {
            let bases = [Some(root), from].into_iter().flatten();
            resolved(found) == *wanted
                || (found.is_relative()
                    && bases
                        .into_iter()
                        .any(|b| resolved(&b.join(found)) == *wanted))
        })
}

fn env_files_agree(
    container: &Container,
    directory: &Path,
    wanted: &[PathBuf],
    root: &Path,
) -> bool {
    if !container.env_files.is_empty() {
        return same_files(container, &container.env_files, wanted, root);
    }
    let v1 = container
        .compose_version
        .as_deref()
        .is_some_and(|v| v.starts_with("1."));
    let default = resolved(&directory.join(".env"));
    v1 || wanted.is_empty() || (wanted.len() == 1 && wanted[0] == default)
}

/// Without symbolic links; unchanged when it is not there.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn existing(root: &Path, paths: &[PathBuf]) -> Result<Vec<PathBuf>, DiscoverError> {
    paths
        .iter()
        .map(|path| {
            let path = root.join(path);
            path.canonicalize().map_err(|e| DiscoverError::File {
                reason: e.to_string(),
                path,
            })
        })
        .collect()
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    if shown.is_empty() {
        "no file".into()
    } else {
        shown.join(", ")
    }
}

fn others(made: &BTreeMap<&str, Vec<&Container>>) -> String {
    let shown: Vec<String> = made
        .iter()
        .map(|(name, all)| format!("{name} (from {})", list(&all[0].config_files)))
        .collect();
    if shown.is_empty() {
        "none".into()
    } else {
        shown.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::container::tests::sample;
    use super::*;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("infra")).unwrap();
            for file in [
                "infra/c.yml",
                "infra/o.yml",
                ".env.production",
                "infra/.env",
            ] {
                std::fs::write(dir.path().join(file), "").unwrap();
            }
            Self { dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn wanted(&self) -> Wanted {
            Wanted {
                root: self.dir.path().to_owned(),
                config_files: vec!["infra/c.yml".into()],
                env_files: vec![".env.production".into()],
                project: None,
            }
        }

        fn container(&self, project: &str, service: &str) -> Container {
            let mut c = sample(service);
            c.project = project.into();
            c.working_dir = Some(self.path("infra"));
            c.config_files = vec![self.path("infra/c.yml")];
            c.env_files = vec![self.path(".env.production")];
            c
        }
    }

    #[test]
    fn the_labels_name_the_project_whatever_its_folder_is_called() {
        let place = Place::new();
        let found = Project::among(
            &[place.container("odd", "api"), place.container("odd", "db")],
            &place.wanted(),
        )
        .unwrap();
        assert_eq!(found.name, "odd");
        assert_eq!(found.working_dir, place.path("infra"));
        assert_eq!(found.env_files, [place.path(".env.production")]);
    }

    #[test]
    fn a_symbolic_link_is_the_same_file_and_stays_as_compose_wrote_it() {
        let place = Place::new();
        std::os::unix::fs::symlink(place.path("infra/c.yml"), place.path("link.yml")).unwrap();
        let mut c = place.container("p", "api");
        c.config_files = vec![place.path("link.yml")];
        let found = Project::among(&[c], &place.wanted()).unwrap();
        assert_eq!(found.config_files, [place.path("link.yml")]);
    }

    #[test]
    fn two_projects_from_one_file_are_listed_unless_the_profile_names_one() {
        let place = Place::new();
        let both = [place.container("a", "api"), place.container("b", "api")];
        let error = Project::among(&both, &place.wanted()).unwrap_err();
        assert!(
            matches!(&error, DiscoverError::Several { projects, .. } if projects == &["a", "b"]),
            "{error}"
        );
        let named = Wanted {
            project: Some("b".into()),
            ..place.wanted()
        };
        assert_eq!(Project::among(&both, &named).unwrap().name, "b");
    }

    #[test]
    fn a_project_of_the_wanted_name_from_another_file_is_refused_with_that_file() {
        let place = Place::new();
        let mut other = place.container("prod", "api");
        other.config_files = vec![place.path("infra/o.yml")];
        let named = Wanted {
            project: Some("prod".into()),
            ..place.wanted()
        };
        let error = Project::among(&[other], &named).unwrap_err();
        assert!(
            matches!(&error, DiscoverError::OtherFiles { found, .. } if found.ends_with("o.yml")),
            "{error}"
        );
    }

    #[test]
    fn a_stack_under_another_name_than_the_profiles_is_refused_with_its_name() {
        let place = Place::new();
        let named = Wanted {
            project: Some("prod".into()),
            ..place.wanted()
        };
        let error = Project::among(&[place.container("staging", "api")], &named).unwrap_err();
        assert!(
            matches!(&error, DiscoverError::OtherName { found, .. } if found == &["staging"]),
            "{error}"
        );
    }

    #[test]
    fn a_container_with_an_extra_file_or_another_env_file_is_refused_by_name() {
        let place = Place::new();
        let mut odd = place.container("p", "worker");
        odd.config_files.push(place.path("infra/o.yml"));
        let error =
            Project::among(&[place.container("p", "api"), odd], &place.wanted()).unwrap_err();
        assert!(
            matches!(&error, DiscoverError::OtherFiles { container, .. } if container == "p-worker-1"),
            "{error}"
        );

        let mut odd = place.container("p", "worker");
        odd.env_files = vec![];
        let error =
            Project::among(&[place.container("p", "api"), odd], &place.wanted()).unwrap_err();
        assert!(error.to_string().contains("no --env-file"), "{error}");
    }

    #[test]
    fn without_an_env_file_label_the_default_file_is_meant() {
        let place = Place::new();
        let mut c = place.container("p", "api");
        c.env_files = vec![];
        let default = Wanted {
            env_files: vec!["infra/.env".into()],
            ..place.wanted()
        };
        let found = Project::among(&[c.clone()], &default).unwrap();
        assert!(
            found.env_files.is_empty(),
            "and compose is called without --env-file, as before"
        );
        let none = Wanted {
            env_files: vec![],
            ..place.wanted()
        };
        assert!(Project::among(&[c], &none).is_ok());
    }

    #[test]
    fn containers_made_from_two_directories_disagree() {
        let place = Place::new();
        let mut odd = place.container("p", "worker");
        odd.working_dir = Some(place.path(""));
        let error =
            Project::among(&[place.container("p", "api"), odd], &place.wanted()).unwrap_err();
        assert!(matches!(error, DiscoverError::Disagree { .. }), "{error}");
    }

    #[test]
    fn a_stack_that_does_not_run_is_refused_with_what_does() {
        let place = Place::new();
        let mut other = place.container("blog", "web");
        other.config_files = vec!["/srv/blog/compose.yml".into()];
        let mut one_off = place.container("run", "api");
        one_off.one_off = true;
        let error = Project::among(&[other, one_off], &place.wanted()).unwrap_err();
        assert!(
            matches!(&error, DiscoverError::NotRunning { others, .. } if others.starts_with("blog ")),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let place = Place::new();
        let wanted = Wanted {
            config_files: vec!["nope.yml".into()],
            ..place.wanted()
        };
        let error = Project::among(&[], &wanted).unwrap_err();
        assert!(error.to_string().contains("nope.yml"), "{error}");
    }

    #[test]
    fn version_1_writes_paths_as_they_were_typed_and_no_env_file() {
        let place = Place::new();
        let mut c = place.container("p", "api");
        c.compose_version = Some("1.29.2".into());
        c.config_files = vec!["infra/c.yml".into()];
        c.env_files = vec![];
        let found = Project::among(&[c], &place.wanted()).unwrap();
        assert!(found.made_by_v1());
        assert_eq!(
            found.env_files,
            [place.path(".env.production").canonicalize().unwrap()]
        );
        assert!(found.config_files[0].is_absolute());
    }
}
