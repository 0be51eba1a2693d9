//! Apache Kafka: a broker that runs already.

use std::net::TcpStream;

use super::{Durability, Endpoint, Site, StartError, Started, System};
use crate::target::kafka::{FLUSH, Kafka};

/// Looks whether the broker is there. What is set is set for the topic of each run.
pub fn start(site: &Site<'_>, durability: Durability) -> Result<Started, StartError> {
    let Some(address) = site.place.kafka.clone() else {
        return Err(StartError::Cannot(System::Kafka.left_out().to_owned()));
    };
    let cannot = |error| StartError::Cannot(format!("no broker at {address}: {error}"));
    TcpStream::connect(&address).map_err(cannot)?;
    let (topic, flush) = match durability {
        Durability::Synced => (format!("topic with {}={}", FLUSH.0, FLUSH.1), true),
        Durability::Default => ("topic as the broker makes it".to_owned(), false),
    };
    let settings = format!(
        "{topic}, 1 replica; acks=all, a produce request a batch, a connection a producer; the broker at {address} as it was \
         found, neither kept to a CPU nor held still between runs"
    );
    Ok((Endpoint::Kafka(Kafka { address, flush }), settings, Vec::new()))
}
