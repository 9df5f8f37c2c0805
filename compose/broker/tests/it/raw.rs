//! A client that speaks the protocol itself, for what rdkafka doesn't let one say.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    FetchRequest, InitProducerIdRequest, ListOffsetsRequest, ProduceRequest, RequestHeader,
    ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{
    Decodable as _, Encodable as _, HeaderVersion as _, Request, StrBytes,
};

use crate::server::PATIENCE;

/// Kafka says so for a moment after it has made a topic.
const NOT_YET_LEADER: i16 = 6;

pub(crate) struct Raw(TcpStream);

pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn send<R: Request>(&mut self, request: &R, version: i16) {
        let mut frame = BytesMut::new();
        frame.put_u32(0);
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(Some(text("raw")))
            .encode(&mut frame, R::header_version(version))
            .unwrap();
        request.encode(&mut frame, version).unwrap();
        let length = u32::try_from(frame.len() - 4).unwrap();
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.send_bytes(&frame);
    }

    /// The next frame, without its length.
    pub(crate) fn receive_bytes(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut frame)?;
        Ok(Bytes::from(frame))
    }

    pub(crate) fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let mut frame = self.receive_bytes().unwrap();
        let header =
            ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, 77);
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "bytes after the answer");
        response
    }

    pub(crate) fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.send(request, version);
        self.receive::<R>(version)
    }

    /// Whether the other side has closed the connection.
    pub(crate) fn closed(&mut self) -> bool {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn producer_id(&mut self) -> i64 {
        self.call(
            &InitProducerIdRequest::default().with_transactional_id(None),
            1,
        )
        .producer_id
        .0
    }

    /// Produces one batch; answers error code and base offset.
    pub(crate) fn produce(&mut self, name: &str, partition: i32, batch: Bytes) -> (i16, i64) {
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch));
        let data = TopicProduceData::default()
            .with_name(topic(name))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![data]);
        loop {
            let response = self.call(&request, 7);
            let answer = &response.responses[0].partition_responses[0];
            if answer.error_code != NOT_YET_LEADER {
                return (answer.error_code, answer.base_offset);
            }
        }
    }

    /// Fetches from one partition; answers error code and records.
    pub(crate) fn fetch(
        &mut self,
        name: &str,
        partition: i32,
        offset: i64,
        wait: i32,
        most: i32,
    ) -> (i16, Bytes) {
        loop {
            let response = self.call(&fetch_request(name, partition, offset, wait, most), 11);
            let answer = &response.responses[0].partitions[0];
            if answer.error_code != NOT_YET_LEADER {
                return (
                    answer.error_code,
                    answer.records.clone().unwrap_or_default(),
                );
            }
        }
    }

    /// The offset and time stamp that a time stands for; negative ones have special meanings.
    pub(crate) fn list_offset(&mut self, name: &str, partition: i32, timestamp: i64) -> (i64, i64) {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_timestamp(timestamp);
        let wanted = ListOffsetsTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![wanted]);
        let response = self.call(&request, 7);
        let answer = &response.topics[0].partitions[0];
        assert_eq!(answer.error_code, 0);
        (answer.offset, answer.timestamp)
    }
}

pub(crate) fn fetch_request(
    name: &str,
    partition: i32,
    offset: i64,
    wait: i32,
    most: i32,
) -> FetchRequest {
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(most);
    let wanted = FetchTopic::default()
        .with_topic(topic(name))
        .with_partitions(vec![wanted]);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(wait)
        .with_min_bytes(1)
        .with_max_bytes(i32::MAX)
        .with_session_epoch(-1)
        .with_topics(vec![wanted])
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// An uncompressed batch. `producer` is id, epoch and first sequence number; -1 for none.
pub(crate) fn batch(values: &[&[u8]], producer: (i64, i16, i32), timestamp: i64) -> Bytes {
    let mut records = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let mut record = vec![0];
        put_varint(&mut record, 0);
        put_varint(&mut record, i64::try_from(index).unwrap());
        put_varint(&mut record, -1);
        put_varint(&mut record, i64::try_from(value.len()).unwrap());
        record.extend_from_slice(value);
        put_varint(&mut record, 0);
        put_varint(&mut records, i64::try_from(record.len()).unwrap());
        records.extend_from_slice(&record);
    }
    let count = i32::try_from(values.len()).unwrap();
    let mut covered = BytesMut::new();
    covered.put_u16(0);
    covered.put_i32(count - 1);
    covered.put_i64(timestamp);
    covered.put_i64(timestamp);
    covered.put_i64(producer.0);
    covered.put_i16(producer.1);
    covered.put_i32(producer.2);
    covered.put_i32(count);
    covered.put_slice(&records);
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32(i32::try_from(covered.len()).unwrap() + 9);
    batch.put_i32(-1);
    batch.put_u8(2);
    batch.put_u32(crc32c::crc32c(&covered));
    batch.put_slice(&covered);
    batch.freeze()
}

pub(crate) const NO_PRODUCER: (i64, i16, i32) = (-1, -1, -1);
