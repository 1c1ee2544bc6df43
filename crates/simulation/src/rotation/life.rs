//! A run: one machine, one rotation, and as many lives of keyroll as it takes.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keyroll_journal::{Ending, Epoch, Event, Journal, JournalError, Lock, RotationId};
use keyroll_saga::{Clock, DriveError, Limits, Shape, StepCx, Stop, Watcher, drive};

use super::laws;
use super::plant::Plant;
use super::steps::{plan, unknown};
use super::stored::{another_rotation, close, new_rotation, rotation_id};
use super::world::{Weather, World};
use crate::faults::{Verdict, at, full_from, now_and_then};
use crate::{Disk, Random, SharedDisk, Vfs};

const DATABASE: &str = "state.db";
/// From this life on nothing goes wrong any more: then the rotation must come to its end.
const CALM_FROM: u32 = 7;
const LIVES: u32 = 10;

/// What came of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The seed that replays it.
    pub seed: u64,
    /// How often keyroll was started.
    pub lives: u32,
    /// How the rotation ended; none where it did not.
    pub ending: Option<Ending>,
    /// The laws that were broken. Empty in a good world.
    pub broken: Vec<String>,
}

/// Everything that runs share: a prepared disk, and a lock as proof of being alone.
pub struct Simulator {
    image: Disk,
    shape: Shape,
    lock: Lock,
    _directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Simulator({} steps)", self.shape.names().count())
    }
}

struct Silent;
impl Watcher for Silent {
    fn event(&self, _: &Event) {}
}

fn open(vfs: &Vfs) -> Result<Journal, JournalError> {
    Journal::open_through(vfs.name(), Path::new(DATABASE), vfs.renew_log_of(DATABASE))
}

fn locked(disk: &SharedDisk) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a process came to its end.
enum End {
    Over(Result<Ending, DriveError>),
    Died,
    StandsStill,
}

/// A process that runs: its way to the disk, and what it does.
struct Living<'a> {
    vfs: Arc<Vfs>,
    world: World,
    doing: Pin<Box<dyn Future<Output = Result<Ending, DriveError>> + 'a>>,
}

impl Living<'_> {
    async fn goes_on(&mut self, may_stand: bool) -> End {
        tokio::select! {
            biased;
            () = self.world.death() => End::Died,
            () = self.world.standstill(), if may_stand => End::StandsStill,
            result = &mut self.doing => End::Over(result),
        }
    }
}

impl Simulator {
    /// For plans of this shape; refused where there is no model of a step. Makes a directory for the lock, and the database's tables on a simulated disk.
    pub fn new(shape: Shape) -> std::io::Result<Self> {
        if let Some(step) = unknown(&shape) {
            let why = format!("step {step} has no model here, see `steps.rs`");
            return Err(std::io::Error::other(why));
        }
        let directory = tempfile::tempdir()?;
        let at = Timestamp::UNIX_EPOCH;
        let lock = Lock::acquire(directory.path(), directory.path(), at)
            .map_err(|e| std::io::Error::other(e.to_string()))?;
        let disk: SharedDisk = Arc::new(Mutex::new(Disk::new(0)));
        let vfs = Vfs::register(&disk);
        drop(open(&vfs).map_err(std::io::Error::other)?);
        let image = locked(&disk).image(0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        Ok(Self {
            image,
            shape,
            lock,
            _directory: directory,
            runtime,
        })
    }

    /// One run. The same seed gives the same.
    pub fn run(&self, seed: u64, plant: Option<Plant>) -> Summary {
        let mut random = Random::new(seed);
        let disk: SharedDisk = Arc::new(Mutex::new(self.image.image(random.draw())));
        if plant == Some(Plant::NoSync) {
            locked(&disk).set_sync_is_a_lie(true);
        }
        let run = Run {
            simulator: self,
            world: World::new(random.fork()),
            disk,
            plant,
        };
        self.runtime.block_on(run.lives(seed, random))
    }
}

struct Run<'a> {
    simulator: &'a Simulator,
    world: World,
    disk: SharedDisk,
    plant: Option<Plant>,
}

impl Run<'_> {
    async fn lives(&self, seed: u64, mut random: Random) -> Summary {
        let deadly = random.odds(1, 3);
        let mut sleeper: Option<Living<'_>> = None;
        let mut summary = Summary {
            seed,
            lives: 0,
            ending: None,
            broken: vec![],
        };
        while summary.lives < LIVES {
            summary.lives += 1;
            let weather = match summary.lives {
                CALM_FROM.. => Weather::Calm,
                _ if deadly => Weather::Deadly,
                _ => Weather::Rough,
            };
            self.world.set_weather(weather);
            self.set_faults(weather, &mut random);
            let mut living = self.begin_life(&mut random);
            let woken = async {
                let Some(mut old) = sleeper.take() else {
                    return;
                };
                tokio::time::sleep(Duration::from_millis(random.below(4000))).await;
                if let End::Over(Err(DriveError::Journal(JournalError::Fenced { own, .. }))) =
                    old.goes_on(false).await
                    && self.plant == Some(Plant::UnfencedAppend)
                {
                    self.append_unfenced(own);
                }
                self.bury(old);
            };
            let (end, ()) = tokio::join!(living.goes_on(weather != Weather::Calm), woken);
            let loses_power = locked(&self.disk).stopped() || random.odds(1, 3);
            match end {
                End::StandsStill => sleeper = Some(living),
                End::Over(Ok(ending)) if ending != Ending::Stuck => {
                    drop(living);
                    summary.ending = Some(ending);
                    break;
                }
                End::Over(result) if !locked(&self.disk).stopped() => {
                    if let Err(error) = result {
                        self.note(&error);
                    }
                    drop(living);
                }
                _ => {
                    if loses_power {
                        locked(&self.disk).lose_power(&mut random);
                        self.world.reboot();
                        sleeper = None;
                    }
                    self.bury(living);
                }
            }
            if weather == Weather::Rough && random.odds(1, 15) {
                self.world.edit();
            }
        }
        locked(&self.disk).clear_faults();
        if let Some(old) = sleeper.take() {
            self.bury(old);
        }
        // What was acknowledged must be there after the hardest end of all.
        locked(&self.disk).lose_power(&mut random);
        self.world.reboot();
        let vfs = Vfs::register(&self.disk);
        match open(&vfs) {
            Ok(journal) => {
                summary.broken = laws::broken(&self.world, &journal, summary.ending);
                if summary.ending.is_some()
                    && let Err(error) = self.another_begins(journal)
                {
                    let wedged = format!("no wedge: the next rotation cannot begin: {error}");
                    summary.broken.push(wedged);
                }
            }
            Err(error) => summary
                .broken
                .push(format!("law 1: the journal is lost: {error}")),
        }
        summary
    }

    /// Whatever the ending, the journal takes the next rotation, and nothing has to be mended first.
    fn another_begins(&self, journal: Journal) -> Result<(), JournalError> {
        let writer = journal.take_over(&self.simulator.lock)?;
        let next = RotationId::from_text("next");
        writer.begin(&another_rotation(&next), Timestamp::UNIX_EPOCH)?;
        writer.rotation(&next).map(drop)
    }

    /// An error of the disk that a process met and outlived counts as a failure of something, not as a crash.
    fn note(&self, error: &DriveError) {
        match error {
            DriveError::Journal(JournalError::Fenced { .. }) => {}
            DriveError::Journal(_) => self.world.note_failure(),
            other => self
                .world
                .broke(format!("the engine's own records: {other}")),
        }
    }

    /// A process is dead before its connections are closed: they have nothing more to say.
    fn bury(&self, living: Living<'_>) {
        locked(&self.disk).kill(living.vfs.process());
        drop(living);
    }

    fn set_faults(&self, weather: Weather, random: &mut Random) {
        let mut disk = locked(&self.disk);
        disk.clear_faults();
        let next = disk.operations() + 1 + random.below(250);
        match (weather, random.below(8)) {
            (Weather::Calm, _) => {}
            (_, 0 | 1) => disk.set_faults(at(next, Verdict::StopBefore)),
            (_, 2 | 3) => disk.set_faults(at(next, Verdict::StopAfter)),
            (Weather::Rough, 4) => {
                self.world.note_failure();
                disk.set_faults(now_and_then(random.fork(), 40));
            }
            (Weather::Rough, 5) => {
                self.world.note_failure();
                disk.set_faults(full_from(next));
            }
            _ => {}
        }
    }

    fn begin_life<'a>(&'a self, random: &mut Random) -> Living<'a> {
        let vfs = Arc::new(Vfs::register(&self.disk));
        let world = self.world.reborn();
        // Clocks jump, also backwards.
        let hours = i64::try_from(random.below(7)).unwrap_or(0) - 3;
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 + hours);
        let stop = Stop::default();
        if world.weather() == Weather::Rough && random.odds(1, 25) {
            stop.request();
            world.note_failure();
        }
        let doing = Box::pin(self.keyroll(vfs.clone(), world.clone(), now, stop));
        Living { vfs, world, doing }
    }

    /// One process: begins, goes on, or closes, by what it finds.
    async fn keyroll(
        &self,
        vfs: Arc<Vfs>,
        world: World,
        now: Timestamp,
        stop: Stop,
    ) -> Result<Ending, DriveError> {
        let journal = open(&vfs)?;
        let unfinished = journal.unfinished()?.is_some();
        let ended = journal.rotations()?.pop().and_then(|r| r.ending);
        let writer = Arc::new(journal.take_over(&self.simulator.lock)?);
        world.end_orphans(writer.own_epoch());
        let id = rotation_id();
        if unfinished {
            let by = "the next life".to_owned();
            writer.append(&id, &Event::Resumed { by }, now)?;
        } else if let Some(ending) = ended {
            close(&writer, ending, now)?;
            return Ok(ending);
        } else {
            writer.begin(&new_rotation(), now)?;
        }
        let clock = Clock::new(move || now);
        let cx = StepCx::new(id, writer.clone(), stop).with_clock(clock);
        let plan = plan(self.simulator.shape.clone(), &world, self.plant);
        let ending = drive(&plan, &cx, Limits::default(), &Silent).await?;
        close(&writer, ending, now)?;
        Ok(ending)
    }

    /// The planted defect: past the writer that would have refused it.
    fn append_unfenced(&self, epoch: Epoch) {
        let vfs = Vfs::register(&self.disk);
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let Ok(raw) = rusqlite::Connection::open_with_flags_and_vfs(DATABASE, flags, vfs.name())
        else {
            return;
        };
        let event = serde_json::json!({"event": "resumed", "by": "nobody"}).to_string();
        let insert = "INSERT INTO records (rotation, epoch, at, event) VALUES ('r', ?1, '1970-01-01T00:00:00Z', ?2)";
        let _ = raw.execute(insert, rusqlite::params![epoch.to_string(), event]);
    }
}
