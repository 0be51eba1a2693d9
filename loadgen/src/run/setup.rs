//! What must be there before the first record: a link, the streams, and where their shards stand.

use highwater_wire::StreamConfig;

use crate::plan::{Plan, Supplies};
use crate::target::{Link, Refusal, Target};
use crate::{LoadError, LoadOptions};

/// Opens or creates the streams and plans the run on them.
pub async fn set_up<T: Target>(
    target: &T,
    options: LoadOptions,
) -> Result<(T::Link, Plan), LoadError> {
    let supplies = Supplies::prepare(&options)?;
    let refused = |doing: &'static str| {
        let target = target.address().to_owned();
        move |why: Refusal| LoadError::Target { target, doing, message: why.0 }
    };
    let control = target.link().await.map_err(refused("connecting"))?;
    let config = StreamConfig {
        shards: options.shards,
        retention_ms: 0,
        retention_bytes: options.retention_bytes,
        ack: options.ack,
        ..StreamConfig::default()
    };
    let (mut streams, mut from) = (Vec::new(), Vec::new());
    for name in options.stream_names() {
        let stream = control.stream(&name, &config).await;
        let stream = stream.map_err(refused("preparing the stream"))?;
        for shard in stream.shards.iter().filter(|shard| !shard.closed) {
            let mark = control.high_water(&stream, shard.shard).await;
            from.push(mark.map_err(refused("finding the high-water mark"))?);
        }
        streams.push(stream);
    }
    let plan = Plan::new(options, supplies, &control, streams, from, target.readable())?;
    Ok((control, plan))
}
