//! A Docker Engine of a test's own, which it can stop and kill: a machine's own may run what others need.
//!
//! The test runs again as the only inhabitant of new namespaces for processes, mounts and the network. There `/run` is empty,
//! so that the engine can listen where everybody looks for one, with a data directory of its own. Its firewall rules, bridges
//! and ports are nobody else's, and whatever is left ends with the namespaces.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{TestkitError, sweep};

/// What the stack runs; the other images are below these.
const IMAGES: [&str; 2] = ["keyroll-sandbox-panel:1", "keyroll-sandbox-postgres:15"];
/// Tells the test that it runs inside, and where the engine's files are.
const INSIDE: &str = "KEYROLL_OWN_ENGINE";
const SOCKET: &str = "/run/docker.sock";
const LIMIT: Duration = Duration::from_secs(60);
/// The shell stays as the first process, which has to take in the children that lose their parents.
const ENTER: &str = "ip link set lo up && mount -t tmpfs tmpfs /run && \"$@\"; exit $?";

/// An engine that runs, or was stopped. Ended when dropped.
#[derive(Debug)]
pub struct OwnEngine {
    directory: PathBuf,
    dockerd: Option<Child>,
}

impl OwnEngine {
    /// Runs the test of this name again in namespaces of its own, and there gives it an engine that has the sandbox's images.
    /// Outside the answer is `None`, once the test inside has passed. Blocks: the images take some ten seconds.
    ///
    /// # Panics
    ///
    /// Outside when the test inside has failed.
    pub fn enter(test: &str) -> Result<Option<Self>, TestkitError> {
        if let Some(directory) = std::env::var_os(INSIDE) {
            let mut engine = Self {
                directory: directory.into(),
                dockerd: None,
            };
            engine.start()?;
            // What `docker save` of the engine outside writes.
            run(Command::new("docker").arg("load").stdin(Stdio::inherit()))?;
            return Ok(Some(engine));
        }
        let directory = sweep::sandbox().join("engine");
        fs::create_dir_all(sweep::sandbox()).map_err(TestkitError::io(&directory))?;
        let lock = File::create(directory.with_extension("lock"))
            .and_then(|file| file.lock().map(|()| file))
            .map_err(TestkitError::io(&directory))?;
        remove(&directory)?;
        let passed = inside(test, &directory);
        remove(&directory)?;
        drop(lock);
        assert!(passed?, "{test} failed in its namespaces; see above");
        Ok(None)
    }

    /// Stops it as a service manager does. Without live restore its containers stop too.
    pub fn stop(&mut self) -> Result<(), TestkitError> {
        self.end(Signal::TERM)
    }

    /// Kills it. Its containers go on until it is there again.
    pub fn kill(&mut self) -> Result<(), TestkitError> {
        self.end(Signal::KILL)
    }

    /// Starts it, and waits until it answers. It starts the containers that ran, if their policy says so.
    pub fn start(&mut self) -> Result<(), TestkitError> {
        fs::create_dir_all(&self.directory).map_err(TestkitError::io(&self.directory))?;
        let path = self.directory.join("log");
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(TestkitError::io(&path))?;
        let errors = log.try_clone().map_err(TestkitError::io(&path))?;
        let dockerd = Command::new("dockerd")
            .arg("--data-root")
            .arg(self.directory.join("data"))
            .args(["--bridge", "none"])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|e| failed("dockerd", e.to_string()))?;
        self.dockerd = Some(dockerd);
        let end = Instant::now() + LIMIT;
        while run(Command::new("docker").arg("version")).is_err() {
            if Instant::now() >= end {
                let said = fs::read_to_string(&path).unwrap_or_default();
                return Err(failed("dockerd", said));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<(), TestkitError> {
        let Some(mut dockerd) = self.dockerd.take() else {
            return Ok(());
        };
        let pid = i32::try_from(dockerd.id()).ok().and_then(Pid::from_raw);
        let sent = pid.map_or(Ok(()), |pid| kill_process(pid, signal));
        sent.map_err(|e| failed("dockerd", e.to_string()))?;
        dockerd
            .wait()
            .map_err(|e| failed("dockerd", e.to_string()))?;
        // Of a killed one the file stays, and nobody listens; and the next one would take a number that is used again for its own.
        for left in [SOCKET, "/run/docker.pid"] {
            let _ = fs::remove_file(left);
        }
        Ok(())
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Whether the test has passed there.
fn inside(test: &str, directory: &Path) -> Result<bool, TestkitError> {
    let own = std::env::current_exe().map_err(|e| failed(test, e.to_string()))?;
    let mut save = Command::new("docker")
        .arg("save")
        .args(IMAGES)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed("docker save", e.to_string()))?;
    let images = save.stdout.take().map_or_else(Stdio::null, Stdio::from);
    // Killed together with this process, and with it everything inside.
    let ended = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", ENTER, "sh"])
        .arg(own)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, directory)
        .env_remove("DOCKER_HOST")
        .stdin(images)
        .status();
    let _ = save.kill();
    let _ = save.wait();
    ended
        .map(|status| status.success())
        .map_err(|e| failed("unshare", e.to_string()))
}

fn remove(directory: &Path) -> Result<(), TestkitError> {
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(TestkitError::io(directory))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), TestkitError> {
    let done = command
        .stdout(Stdio::null())
        .output()
        .map_err(|e| failed("docker", e.to_string()))?;
    if done.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        Err(failed("docker", said))
    }
}

fn failed(what: &str, said: String) -> TestkitError {
    TestkitError::Command {
        what: what.to_owned(),
        said,
    }
}
