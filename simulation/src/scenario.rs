//! A plan of any rig, and what came of it, for whoever does not care which rig it is.

use crate::{cluster, core, panics, plan, process, wire};
use std::fmt;
use std::panic::catch_unwind;

/// A rig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// State and deciding code over a perfect log.
    Core,
    /// Whole peers with Raft, over simulated links and disks.
    Cluster,
    /// The same with real gRPC, over simulated sockets.
    Wire,
    /// The real program, a network namespace a peer.
    Process,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Of the core rig.
    Core(plan::Plan),
    /// Of the cluster rig.
    Cluster(cluster::Plan),
    /// Of the wire rig, which takes plans as the cluster rig does.
    Wire(cluster::Plan),
    /// Of the process rig, which takes plans as the cluster rig does.
    Process(cluster::Plan),
}

/// What came of a plan.
#[derive(Clone, Debug)]
pub enum Played {
    /// In the core rig.
    Core(Box<core::Run>),
    /// In the cluster rig.
    Cluster(Box<cluster::Run>),
    /// In the wire rig.
    Wire(Box<cluster::Run>),
    /// In the process rig.
    Process(Box<cluster::Run>),
    /// The rig was broken off.
    Panicked(String),
}

/// A property that is broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub property: String,
    /// How.
    pub detail: String,
}

impl World {
    /// The word for it, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            World::Core => "core",
            World::Cluster => "cluster",
            World::Wire => "wire",
            World::Process => "process",
        }
    }

    /// The command that runs a seed again.
    pub fn command(self, seed: impl fmt::Display) -> String {
        match self {
            World::Core => format!("make reproduce SEED={seed}"),
            World::Cluster | World::Wire | World::Process => {
                format!("make reproduce RIG={} SEED={seed}", self.name())
            }
        }
    }
}

impl Scenario {
    /// Draws the plan of a seed.
    pub fn of(world: World, seed: u64) -> Scenario {
        match world {
            World::Core => Scenario::Core(plan::Plan::of(seed)),
            World::Cluster => Scenario::Cluster(cluster::Plan::of(seed)),
            World::Wire => Scenario::Wire(wire::plan(seed)),
            World::Process => Scenario::Process(process::plan(seed)),
        }
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// Says why the text is none.
    pub fn read(world: World, text: &str) -> Result<Scenario, String> {
        match world {
            World::Core => {
                plan::Plan::from_lines(text).map(Scenario::Core).map_err(|error| error.to_string())
            }
            World::Cluster => read(text).map(Scenario::Cluster),
            World::Wire => read(text).map(Scenario::Wire),
            World::Process => read(text).map(Scenario::Process),
        }
    }

    /// Writes the plan as [`Scenario::read`] reads it.
    pub fn write(&self) -> String {
        match self {
            Scenario::Core(plan) => plan.to_lines(),
            Scenario::Cluster(plan) | Scenario::Wire(plan) | Scenario::Process(plan) => {
                serde_json::to_string_pretty(plan).expect("a plan is plain data") + "\n"
            }
        }
    }

    /// Which rig it is for.
    pub fn world(&self) -> World {
        match self {
            Scenario::Core(_) => World::Core,
            Scenario::Cluster(_) => World::Cluster,
            Scenario::Wire(_) => World::Wire,
            Scenario::Process(_) => World::Process,
        }
    }

    /// The seed in it.
    pub fn seed(&self) -> u64 {
        match self {
            Scenario::Core(plan) => plan.shape.seed,
            Scenario::Cluster(plan) | Scenario::Wire(plan) | Scenario::Process(plan) => {
                plan.shape.seed
            }
        }
    }

    /// Runs it.
    pub fn play(&self) -> Played {
        panics::watch();
        panics::take();
        let played = catch_unwind(|| match self {
            Scenario::Core(plan) => {
                Played::Core(Box::new(core::run(plan, core::Options::default())))
            }
            Scenario::Cluster(plan) => Played::Cluster(Box::new(cluster::run(plan))),
            Scenario::Wire(plan) => Played::Wire(Box::new(wire::run(plan))),
            Scenario::Process(plan) => Played::Process(Box::new(process::run(plan))),
        });
        played.unwrap_or_else(|_| {
            let text = panics::take().into_iter().next();
            Played::Panicked(text.unwrap_or_else(|| "a panic without a text".to_owned()))
        })
    }
}

impl Played {
    /// The first property that was broken.
    pub fn broken(&self) -> Option<Broken> {
        let (property, detail) = match self {
            Played::Core(run) => {
                let violation = run.violation.as_ref()?;
                (violation.property, violation.detail.clone())
            }
            Played::Cluster(run) | Played::Wire(run) | Played::Process(run) => {
                let (property, detail) = run.violation.as_ref()?;
                (*property, detail.clone())
            }
            Played::Panicked(text) => ("panic", text.clone()),
        };
        Some(Broken { property: property.to_owned(), detail })
    }

    /// Digest of everything that happened: of records and randomness, or of calls, frames, disks and
    /// operations.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut take = |text: &str| {
            hasher.update(text.as_bytes());
        };
        match self {
            Played::Core(run) => {
                take(&run.hash);
                take(&run.unseed.to_string());
                run.operations.iter().for_each(|operation| take(&operation.to_string()));
            }
            Played::Cluster(run) | Played::Wire(run) | Played::Process(run) => {
                take(&run.hash);
                run.operations.iter().for_each(|operation| take(&operation.to_string()));
                run.glances.iter().for_each(|glance| take(&format!("{glance:?}")));
            }
            Played::Panicked(text) => take(text),
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn read(text: &str) -> Result<cluster::Plan, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {}", self.property, self.detail)
    }
}
