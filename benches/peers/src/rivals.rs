//! The systems: how each is started, with which settings, and how it is loaded.
//!
//! `Synced` is equal durability: an acknowledgement means that the record is on the device. `Default` is what a system
//! does when nobody changes its configuration. What is set besides is an address, a directory, and whatever its
//! documentation advises for this use, and is printed.

#[cfg(feature = "iggy")]
mod iggy;
mod kafka;
mod nats;
mod rabbitmq;
mod redis;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use highwater_loadgen::{Highwater, LoadError, LoadOptions, Report, Stop, Target, run_on};

use crate::server::{Server, ServerError, command, free_port};
use crate::target::kafka::Kafka;
use crate::target::nats::Nats;
use crate::target::rabbitmq::RabbitMq;
use crate::target::redis::Redis;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    /// NATS JetStream.
    Nats,
    /// Redis Streams.
    Redis,
    /// RabbitMQ Streams.
    Rabbitmq,
    /// Apache Kafka.
    Kafka,
    /// Apache Iggy.
    Iggy,
}

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The record is on the device.
    Synced,
    /// What it means when nobody changes the configuration.
    Default,
}

/// Where executables and data are.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Where the data goes, all systems' on one file system: a directory on the device to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// CPUs of the server that is measured, as taskset has them; empty for all
    #[arg(long, value_name = "LIST", default_value = "0")]
    pub server_cpus: String,
    /// Highwater's executable
    #[arg(long, value_name = "FILE", default_value = "target/release/highwater")]
    pub highwater: PathBuf,
    /// NATS's server; from 2.10 on it can sync before it acknowledges
    #[arg(long, value_name = "FILE", default_value = "nats-server")]
    pub nats: PathBuf,
    /// Redis's server
    #[arg(long, value_name = "FILE", default_value = "redis-server")]
    pub redis: PathBuf,
    /// RabbitMQ's start script, not a wrapper that changes the user
    #[arg(long, value_name = "FILE", default_value = "/usr/lib/rabbitmq/bin/rabbitmq-server")]
    pub rabbitmq: PathBuf,
    /// A Kafka broker that runs: it is compared with too
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: Option<String>,
    /// Iggy's server: it is compared with too; only if this was built with the feature iggy
    #[arg(long, value_name = "FILE")]
    pub iggy: Option<PathBuf>,
}

/// Why a system is not among those measured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It has no such setting, or there is nothing to start.
    #[error("{0}")]
    Cannot(String),
    /// Its server is not there.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Its files could not be written.
    #[error("its configuration: {0}")]
    Io(#[from] std::io::Error),
}

/// How a system is reached.
pub enum Endpoint {
    /// A Highwater server.
    Highwater(Highwater),
    /// A NATS server.
    Nats(Nats),
    /// A Redis server.
    Redis(Redis),
    /// A RabbitMQ broker.
    RabbitMq(RabbitMq),
    /// A Kafka broker.
    Kafka(Kafka),
    /// An Iggy server.
    #[cfg(feature = "iggy")]
    Iggy(crate::target::iggy::Iggy),
}

/// A system that runs.
pub struct Contender {
    /// What the table calls it.
    pub name: String,
    /// Which it is; `None` for Highwater.
    pub system: Option<System>,
    /// What is set, as it is set.
    pub settings: String,
    /// What an acknowledgement means.
    pub durability: Durability,
    endpoint: Endpoint,
    servers: Vec<Server>,
}

impl Contender {
    /// Makes a run on it. It goes on for that time only, after everything written so far has settled.
    ///
    /// # Errors
    /// As [`run_on`].
    pub fn run(&self, mut options: LoadOptions, stop: &Stop) -> Result<Report, LoadError> {
        rustix::fs::sync();
        self.servers.iter().for_each(Server::resume);
        options.target = self.endpoint.address().to_owned();
        let report = self.endpoint.run(options, stop);
        self.servers.iter().for_each(Server::pause);
        report
    }
}

impl Endpoint {
    fn address(&self) -> &str {
        match self {
            Endpoint::Highwater(target) => target.address(),
            Endpoint::Nats(target) => target.address(),
            Endpoint::Redis(target) => target.address(),
            Endpoint::RabbitMq(target) => target.address(),
            Endpoint::Kafka(target) => target.address(),
            #[cfg(feature = "iggy")]
            Endpoint::Iggy(target) => target.address(),
        }
    }

    fn run(&self, options: LoadOptions, stop: &Stop) -> Result<Report, LoadError> {
        match self {
            Endpoint::Highwater(target) => run_on(target.clone(), options, &mut (), stop),
            Endpoint::Nats(target) => run_on(target.clone(), options, &mut (), stop),
            Endpoint::Redis(target) => run_on(target.clone(), options, &mut (), stop),
            Endpoint::RabbitMq(target) => run_on(target.clone(), options, &mut (), stop),
            Endpoint::Kafka(target) => run_on(target.clone(), options, &mut (), stop),
            #[cfg(feature = "iggy")]
            Endpoint::Iggy(target) => run_on(target.clone(), options, &mut (), stop),
        }
    }
}

/// Where one server has its files and listens.
struct Site<'a> {
    place: &'a Place,
    dir: PathBuf,
    name: String,
    address: SocketAddr,
}

impl Site<'_> {
    fn start(&self, command: Command, hint: &'static str) -> Result<Server, ServerError> {
        Server::start(&self.name, command, &self.dir.join("log"), self.address, hint)
    }

    fn command(&self, program: &Path) -> Command {
        command(program, &self.place.server_cpus, &self.dir)
    }
}

/// What a start gives: how it is reached, its settings, and its processes.
type Started = (Endpoint, String, Vec<Server>);

impl System {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            System::Nats => "NATS JetStream",
            System::Redis => "Redis Streams",
            System::Rabbitmq => "RabbitMQ Streams",
            System::Kafka => "Apache Kafka",
            System::Iggy => "Apache Iggy",
        }
    }

    /// Why it is not among those measured if nobody asked for it.
    pub fn left_out(self) -> &'static str {
        match self {
            System::Nats | System::Redis | System::Rabbitmq => "not among --rivals",
            System::Kafka => "no broker was named: --kafka HOST:PORT",
            System::Iggy => {
                "no server was named: --iggy FILE; its driver is written after the client and the server's \
                 documentation, and has not met a server yet"
            }
        }
    }

    /// Starts it with its data in `data`, and holds it still.
    ///
    /// # Errors
    /// It cannot be as durable as asked, or does not start.
    pub fn start(
        self,
        place: &Place,
        data: &Path,
        durability: Durability,
    ) -> Result<Contender, StartError> {
        let name = format!("{}, {durability}", self.name());
        let site = site(place, data, &name)?;
        let (endpoint, settings, servers) = match self {
            System::Nats => nats::start(&site, durability)?,
            System::Redis => redis::start(&site, durability)?,
            System::Rabbitmq => rabbitmq::start(&site, durability)?,
            System::Kafka => kafka::start(&site, durability)?,
            #[cfg(feature = "iggy")]
            System::Iggy => iggy::start(&site, durability)?,
            #[cfg(not(feature = "iggy"))]
            System::Iggy => {
                let why = "this was built without its client: cargo build --features iggy";
                return Err(StartError::Cannot(why.to_owned()));
            }
        };
        servers.iter().for_each(Server::pause);
        Ok(Contender { name, system: Some(self), settings, durability, endpoint, servers })
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Durability::Synced => "synced",
            Durability::Default => "default",
        })
    }
}

fn site<'a>(place: &'a Place, data: &Path, name: &str) -> Result<Site<'a>, StartError> {
    let dir = data.join(name.replace([' ', ','], "-"));
    std::fs::create_dir_all(&dir)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    Ok(Site { place, dir, name: name.to_owned(), address })
}

/// Starts Highwater, which is as durable as it is by default, and holds it still.
///
/// # Errors
/// It does not start.
pub fn highwater(place: &Place, data: &Path) -> Result<Contender, StartError> {
    let site = site(place, data, "Highwater")?;
    // One core's thread for each CPU the others have.
    let mut settings = format!("serve --listen {}", site.address);
    if !place.server_cpus.is_empty() {
        settings.push_str(&format!(" --cores {}", place.server_cpus));
    }
    let mut serve = site.command(&place.highwater);
    serve.args(settings.split(' ')).arg("--data").arg(site.dir.join("data"));
    serve.env_remove("HIGHWATER_CONFIG");
    let server =
        site.start(serve, "build it: cargo build --release, or name it: --highwater FILE")?;
    server.pause();
    let options = LoadOptions { target: site.address.to_string(), ..LoadOptions::default() };
    Ok(Contender {
        name: site.name,
        system: None,
        settings,
        durability: Durability::Synced,
        endpoint: Endpoint::Highwater(Highwater::of(&options)),
        servers: vec![server],
    })
}
