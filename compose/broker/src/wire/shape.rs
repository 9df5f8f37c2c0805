//! The shape of every request spoken, walked before it is decoded.
//!
//! Why: the decoder reserves memory for as many array elements as a request claims to have, and a
//! 20-byte frame can claim two billion. The walk finds every array's length first, and refuses what the
//! frame can't hold or what is beyond [`MOST_ELEMENTS`]. The shapes follow Kafka's message definitions:
//! <https://github.com/apache/kafka/tree/trunk/clients/src/main/resources/common/message>.

use kafka_protocol::messages::ApiKey;

/// Array elements in one request, nested ones included.
pub(crate) const MOST_ELEMENTS: usize = 20_000;

/// One field: the versions that carry it, and what it is.
struct Field(i16, i16, Kind);

enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string; its length has two bytes, or is compact.
    Text,
    /// Bytes; their length has four bytes, or is compact.
    Blob,
    /// An array of something that isn't a structure.
    List(&'static Kind),
    /// An array of structures.
    Items(&'static [Field]),
}

use Kind::{Blob, Fixed, Items, List, Text};

const fn all(kind: Kind) -> Field {
    Field(0, i16::MAX, kind)
}
const fn since(first: i16, kind: Kind) -> Field {
    Field(first, i16::MAX, kind)
}
const fn until(last: i16, kind: Kind) -> Field {
    Field(0, last, kind)
}
const fn between(first: i16, last: i16, kind: Kind) -> Field {
    Field(first, last, kind)
}

const I8: Kind = Fixed(1);
const I16: Kind = Fixed(2);
const I32: Kind = Fixed(4);
const I64: Kind = Fixed(8);
const UUID: Kind = Fixed(16);

const PRODUCE: &[Field] = &[
    all(Text),
    all(I16),
    all(I32),
    all(Items(&[all(Text), all(Items(&[all(I32), all(Blob)]))])),
];
const FETCH: &[Field] = &[
    all(I32),
    all(I32),
    all(I32),
    all(I32),
    all(I8),
    since(7, I32),
    since(7, I32),
    all(Items(&[
        all(Text),
        all(Items(&[
            all(I32),
            since(9, I32),
            all(I64),
            since(5, I64),
            all(I32),
        ])),
    ])),
    since(7, Items(&[all(Text), all(List(&I32))])),
    since(11, Text),
];
const LIST_OFFSETS: &[Field] = &[
    all(I32),
    since(2, I8),
    all(Items(&[
        all(Text),
        all(Items(&[all(I32), since(4, I32), all(I64)])),
    ])),
];
const METADATA: &[Field] = &[
    all(Items(&[since(10, UUID), all(Text)])),
    since(4, I8),
    between(8, 10, I8),
    since(8, I8),
];
const OFFSET_COMMIT: &[Field] = &[
    all(Text),
    all(I32),
    all(Text),
    since(7, Text),
    until(4, I64),
    all(Items(&[
        all(Text),
        all(Items(&[all(I32), all(I64), since(6, I32), all(Text)])),
    ])),
];
const OFFSET_FETCH: &[Field] = &[
    until(7, Text),
    until(7, Items(&[all(Text), all(List(&I32))])),
    since(
        8,
        Items(&[
            all(Text),
            since(9, Text),
            since(9, I32),
            all(Items(&[all(Text), all(List(&I32))])),
        ]),
    ),
    since(7, I8),
];
const FIND_COORDINATOR: &[Field] = &[until(3, Text), since(1, I8), since(4, List(&Text))];
const JOIN_GROUP: &[Field] = &[
    all(Text),
    all(I32),
    since(1, I32),
    all(Text),
    since(5, Text),
    all(Text),
    all(Items(&[all(Text), all(Blob)])),
    since(8, Text),
];
const HEARTBEAT: &[Field] = &[all(Text), all(I32), all(Text), since(3, Text)];
const LEAVE_GROUP: &[Field] = &[
    all(Text),
    until(2, Text),
    since(3, Items(&[all(Text), all(Text), since(5, Text)])),
];
const SYNC_GROUP: &[Field] = &[
    all(Text),
    all(I32),
    all(Text),
    since(3, Text),
    since(5, Text),
    since(5, Text),
    all(Items(&[all(Text), all(Blob)])),
];
const DESCRIBE_GROUPS: &[Field] = &[all(List(&Text)), since(3, I8)];
const LIST_GROUPS: &[Field] = &[since(4, List(&Text)), since(5, List(&Text))];
const SASL_HANDSHAKE: &[Field] = &[all(Text)];
const API_VERSIONS: &[Field] = &[since(3, Text), since(3, Text)];
const CREATE_TOPICS: &[Field] = &[
    all(Items(&[
        all(Text),
        all(I32),
        all(I16),
        all(Items(&[all(I32), all(List(&I32))])),
        all(Items(&[all(Text), all(Text)])),
    ])),
    all(I32),
    all(I8),
];
const DELETE_TOPICS: &[Field] = &[
    since(6, Items(&[all(Text), all(UUID)])),
    until(5, List(&Text)),
    all(I32),
];
const DELETE_RECORDS: &[Field] = &[
    all(Items(&[all(Text), all(Items(&[all(I32), all(I64)]))])),
    all(I32),
];
const INIT_PRODUCER_ID: &[Field] = &[all(Text), all(I32), since(3, I64), since(3, I16)];
const DESCRIBE_CONFIGS: &[Field] = &[
    all(Items(&[all(I8), all(Text), all(List(&Text))])),
    all(I8),
    since(3, I8),
];
const ALTER_CONFIGS: &[Field] = &[
    all(Items(&[
        all(I8),
        all(Text),
        all(Items(&[all(Text), all(Text)])),
    ])),
    all(I8),
];
const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    all(Items(&[
        all(I8),
        all(Text),
        all(Items(&[all(Text), all(I8), all(Text)])),
    ])),
    all(I8),
];
const SASL_AUTHENTICATE: &[Field] = &[all(Blob)];
const CREATE_PARTITIONS: &[Field] = &[
    all(Items(&[
        all(Text),
        all(I32),
        all(Items(&[all(List(&I32))])),
    ])),
    all(I32),
    all(I8),
];
const DELETE_GROUPS: &[Field] = &[all(List(&Text))];
const OFFSET_DELETE: &[Field] = &[all(Text), all(Items(&[all(Text), all(Items(&[all(I32)]))]))];

/// The shape of an API's request, and the first version with compact lengths and tagged fields.
fn shape(api: ApiKey) -> Option<(&'static [Field], i16)> {
    Some(match api {
        ApiKey::Produce => (PRODUCE, 9),
        ApiKey::Fetch => (FETCH, 12),
        ApiKey::ListOffsets => (LIST_OFFSETS, 6),
        ApiKey::Metadata => (METADATA, 9),
        ApiKey::OffsetCommit => (OFFSET_COMMIT, 8),
        ApiKey::OffsetFetch => (OFFSET_FETCH, 6),
        ApiKey::FindCoordinator => (FIND_COORDINATOR, 3),
        ApiKey::JoinGroup => (JOIN_GROUP, 6),
        ApiKey::Heartbeat => (HEARTBEAT, 4),
        ApiKey::LeaveGroup => (LEAVE_GROUP, 4),
        ApiKey::SyncGroup => (SYNC_GROUP, 4),
        ApiKey::DescribeGroups => (DESCRIBE_GROUPS, 5),
        ApiKey::ListGroups => (LIST_GROUPS, 3),
        ApiKey::SaslHandshake => (SASL_HANDSHAKE, i16::MAX),
        ApiKey::ApiVersions => (API_VERSIONS, 3),
        ApiKey::CreateTopics => (CREATE_TOPICS, 5),
        ApiKey::DeleteTopics => (DELETE_TOPICS, 4),
        ApiKey::DeleteRecords => (DELETE_RECORDS, 2),
        ApiKey::InitProducerId => (INIT_PRODUCER_ID, 2),
        ApiKey::DescribeConfigs => (DESCRIBE_CONFIGS, 4),
        ApiKey::AlterConfigs => (ALTER_CONFIGS, 2),
        ApiKey::SaslAuthenticate => (SASL_AUTHENTICATE, 2),
        ApiKey::CreatePartitions => (CREATE_PARTITIONS, 2),
        ApiKey::DeleteGroups => (DELETE_GROUPS, 2),
        ApiKey::IncrementalAlterConfigs => (INCREMENTAL_ALTER_CONFIGS, 1),
        ApiKey::OffsetDelete => (OFFSET_DELETE, i16::MAX),
        _ => return None,
    })
}

/// `Some` when `body` is a request of that API and version whose arrays it really holds. Bytes behind it
/// are passed over, as Apache Kafka does: librdkafka sends three after a Metadata request for all topics.
pub(crate) fn check(api: ApiKey, version: i16, body: &[u8]) -> Option<()> {
    let (fields, flexible_from) = shape(api)?;
    let mut reader = Reader {
        rest: body,
        flexible: version >= flexible_from,
        elements: MOST_ELEMENTS,
    };
    reader.structure(fields, version)
}

/// Walks a buffer; every step answers `None` beyond its end.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
    /// Array elements that may still come.
    elements: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self {
            rest,
            flexible: false,
            elements: MOST_ELEMENTS,
        }
    }

    /// Bytes not yet read.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The rest of a request header: the client's id, and tagged fields where there are any.
    pub(crate) fn header(&mut self, tagged: bool) -> Option<String> {
        // The client's id keeps its two-byte length in every version.
        let length = i16::from_be_bytes(self.array()?);
        let client_id = match usize::try_from(length) {
            Ok(length) => std::str::from_utf8(self.take(length)?).ok()?.to_owned(),
            Err(_) => String::new(),
        };
        if tagged {
            self.tags()?;
        }
        Some(client_id)
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).ok();
            }
        }
        None
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.take(usize::try_from(size).ok()?)?;
            self.elements = self.elements.checked_sub(1)?;
        }
        Some(())
    }

    /// A compact length (one more than it says; 0 is null), or one of two or four bytes (-1 is null).
    fn length(&mut self, wide: bool) -> Option<usize> {
        let length = if self.flexible {
            i64::from(self.varint()?) - 1
        } else if wide {
            i64::from(i32::from_be_bytes(self.array()?))
        } else {
            i64::from(i16::from_be_bytes(self.array()?))
        };
        if length == -1 {
            Some(0)
        } else {
            usize::try_from(length).ok()
        }
    }

    fn structure(&mut self, fields: &[Field], version: i16) -> Option<()> {
        for Field(first, last, kind) in fields {
            if (*first..=*last).contains(&version) {
                self.field(kind, version)?;
            }
        }
        if self.flexible { self.tags() } else { Some(()) }
    }

    fn field(&mut self, kind: &Kind, version: i16) -> Option<()> {
        match kind {
            Fixed(bytes) => self.take(*bytes).map(|_| ()),
            Text => self
                .length(false)
                .and_then(|length| self.take(length))
                .map(|_| ()),
            Blob => self
                .length(true)
                .and_then(|length| self.take(length))
                .map(|_| ()),
            List(element) => {
                for _ in 0..self.count()? {
                    self.field(element, version)?;
                }
                Some(())
            }
            Items(fields) => {
                for _ in 0..self.count()? {
                    self.structure(fields, version)?;
                }
                Some(())
            }
        }
    }

    fn count(&mut self) -> Option<usize> {
        let count = self.length(true)?;
        // Every element has a byte at least.
        if count > self.rest.len() {
            return None;
        }
        self.elements = self.elements.checked_sub(count)?;
        Some(count)
    }
}
