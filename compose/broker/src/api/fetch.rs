//! Fetch: stored bytes go out as they are, straight from the file into the answer's buffer.
//!
//! A fetch that finds too little waits until a partition of it changes or its time is over. Fetch
//! sessions are answered with full, sessionless fetches, which every client understands.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchRequest;
use tokio::time::{Instant, timeout_at};

use super::blocking;
use crate::log::partition::Partition;
use crate::net::{Peer, Shared};
use crate::wire::patch_length;

const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A decoded fetch.
pub(crate) struct Wanted {
    pub(crate) request: FetchRequest,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
}

struct Target {
    index: i32,
    offset: i64,
    most: usize,
    partition: Result<Arc<Partition>, ResponseError>,
}

impl Target {
    /// Whether there is something to say: records, or an error.
    fn ready(&self) -> bool {
        self.partition.as_ref().map_or(true, |partition| {
            self.offset != partition.end() || partition.closed()
        })
    }
}

struct Plan {
    version: i16,
    correlation: i32,
    most: usize,
    topics: Vec<(String, Vec<Target>)>,
}

/// Stops watching however the fetch ends.
struct Watch<'a> {
    peer: &'a Peer,
    partitions: Vec<Arc<Partition>>,
}

impl Watch<'_> {
    fn again(&self) {
        for partition in &self.partitions {
            partition.watch(self.peer.id, &self.peer.changed);
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        for partition in &self.partitions {
            partition.unwatch(self.peer.id);
        }
    }
}

/// Answers a fetch into `out`, which is returned.
pub(crate) async fn fetch(
    shared: &Arc<Shared>,
    peer: &Peer,
    wanted: Wanted,
    mut out: Vec<u8>,
) -> Vec<u8> {
    let Wanted {
        request,
        version,
        correlation,
    } = wanted;
    if request.session_id != 0 && request.session_epoch > 0 {
        let error = ResponseError::FetchSessionIdNotFound;
        header(&mut out, version, correlation, error.code(), 0);
        patch_length(&mut out, 0);
        return out;
    }
    let deadline = Instant::now() + wait_time(&request);
    let least = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut plan = plan(shared, request, version, correlation);
    let watch = Watch {
        peer,
        partitions: plan.partitions(),
    };
    loop {
        watch.again();
        let over = Instant::now() >= deadline || shared.stop.is_cancelled();
        if over || least == 0 || plan.ready() {
            let (done, buffer, bytes) = assemble(shared, plan, out).await;
            (plan, out) = (done, buffer);
            if over || bytes >= least || plan.failed() {
                return out;
            }
            out.clear();
        }
        tokio::select! {
            _ = timeout_at(deadline, peer.changed.notified()) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

fn wait_time(request: &FetchRequest) -> Duration {
    Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(LONGEST_WAIT)
}

fn plan(shared: &Shared, request: FetchRequest, version: i16, correlation: i32) -> Plan {
    let most = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .min(shared.limits.fetch_bytes);
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let targets = topic.partitions.into_iter().map(|partition| Target {
                index: partition.partition,
                offset: partition.fetch_offset,
                most: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                partition: shared.log.partition(&topic.topic, partition.partition),
            });
            (topic.topic.to_string(), targets.collect())
        })
        .collect();
    Plan {
        version,
        correlation,
        most,
        topics,
    }
}

async fn assemble(shared: &Arc<Shared>, plan: Plan, out: Vec<u8>) -> (Plan, Vec<u8>, usize) {
    if !plan.ready() {
        let (mut plan, mut out) = (plan, out);
        let bytes = plan.write(&mut out);
        return (plan, out, bytes);
    }
    let share = u32::try_from(plan.most.max(1)).unwrap_or(u32::MAX);
    // Closed only when the process ends; reading on without a share is harmless then.
    let permit = Arc::clone(&shared.fetching)
        .acquire_many_owned(share)
        .await
        .ok();
    let empty = plan.empty();
    let work = blocking(shared, move |_| {
        let (mut plan, mut out) = (plan, out);
        let bytes = plan.write(&mut out);
        (plan, out, bytes)
    });
    let done = work.await;
    drop(permit);
    // A panic while reading: the client gets an answer without partitions and asks again.
    done.unwrap_or_else(|_| {
        let mut out = Vec::new();
        header(
            &mut out,
            empty.version,
            empty.correlation,
            ResponseError::UnknownServerError.code(),
            0,
        );
        patch_length(&mut out, 0);
        (empty, out, usize::MAX)
    })
}

impl Plan {
    fn empty(&self) -> Self {
        Self {
            version: self.version,
            correlation: self.correlation,
            most: self.most,
            topics: Vec::new(),
        }
    }

    fn targets(&self) -> impl Iterator<Item = &Target> {
        self.topics.iter().flat_map(|(_, targets)| targets)
    }

    fn partitions(&self) -> Vec<Arc<Partition>> {
        self.targets()
            .filter_map(|target| target.partition.as_ref().ok().cloned())
            .collect()
    }

    fn ready(&self) -> bool {
        self.targets().any(Target::ready)
    }

    /// Whether an error stands in the answer: it goes out at once.
    fn failed(&self) -> bool {
        self.targets().any(|target| {
            target.partition.as_ref().map_or(true, |partition| {
                partition.closed()
                    || target.offset < partition.start()
                    || target.offset > partition.end()
            })
        })
    }

    /// Writes the whole answer; returns the bytes of records in it. Blocks on the disk.
    fn write(&mut self, out: &mut Vec<u8>) -> usize {
        header(out, self.version, self.correlation, 0, self.topics.len());
        let mut total = 0;
        for (name, targets) in &self.topics {
            put_text(out, name);
            put_i32(out, targets.len());
            for target in targets {
                total += self.write_partition(target, total, out);
            }
        }
        patch_length(out, 0);
        total
    }

    fn write_partition(&self, target: &Target, total: usize, out: &mut Vec<u8>) -> usize {
        let head = out.len();
        let fixed = self.partition_head_bytes();
        out.resize(head + fixed, 0);
        let most = target.most.min(self.most.saturating_sub(total));
        let read = match &target.partition {
            Ok(partition) if partition.closed() => Err(ResponseError::UnknownTopicOrPartition),
            Ok(partition) => partition.read(target.offset, most, total == 0, out),
            Err(error) => Err(*error),
        };
        let (end, start) = match (&read, &target.partition) {
            (Ok(_), Ok(partition)) => (partition.end(), partition.start()),
            _ => (-1, -1),
        };
        let bytes = read.unwrap_or(0);
        let mut place = Vec::with_capacity(fixed);
        place.extend_from_slice(&target.index.to_be_bytes());
        place.extend_from_slice(&read.err().map_or(0, |error| error.code()).to_be_bytes());
        place.extend_from_slice(&end.to_be_bytes());
        place.extend_from_slice(&end.to_be_bytes());
        if self.version >= 5 {
            place.extend_from_slice(&start.to_be_bytes());
        }
        place.extend_from_slice(&(-1_i32).to_be_bytes()); // no aborted transactions
        if self.version >= 11 {
            place.extend_from_slice(&(-1_i32).to_be_bytes()); // no preferred replica
        }
        put_i32(&mut place, bytes);
        if let Some(reserved) = out.get_mut(head..head + fixed) {
            reserved.copy_from_slice(&place);
        }
        bytes
    }

    /// Bytes of what [`Self::write_partition`] puts before the records.
    fn partition_head_bytes(&self) -> usize {
        let start = if self.version >= 5 { 8 } else { 0 };
        let replica = if self.version >= 11 { 4 } else { 0 };
        4 + 2 + 8 + 8 + start + 4 + replica + 4
    }
}

/// Length (to be patched), correlation id, throttle time, and from version 7 error and session.
fn header(out: &mut Vec<u8>, version: i16, correlation: i32, error: i16, topics: usize) {
    out.clear();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&correlation.to_be_bytes());
    out.extend_from_slice(&0_i32.to_be_bytes());
    if version >= 7 {
        out.extend_from_slice(&error.to_be_bytes());
        out.extend_from_slice(&0_i32.to_be_bytes());
    }
    put_i32(out, topics);
}

fn put_i32(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&i32::try_from(value).unwrap_or(i32::MAX).to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&i16::try_from(text.len()).unwrap_or(i16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
