//! How plans travel: our nodes and tables as bytes. Digests, names and schemas, never code.
//!
//! All else is Ballista's own to encode. What is ours begins with a mark that no message of
//! Ballista's begins with.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use ballista_core::serde::{BallistaLogicalExtensionCodec, BallistaPhysicalExtensionCodec};
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Extension, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use datafusion_proto::logical_plan::LogicalExtensionCodec;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::formats::{Encoding, Kind};
use crate::groups::{GroupsExec, GroupsNode, GroupsSpec, NumberExec};
use crate::map_exec::MapExec;
use crate::plan::{MapNode, MapSpec, SinkNode, SinkSpec, only};
use crate::scan::SnapshotTable;
use crate::sink_exec::SinkExec;
use crate::source::{DataFile, Source};

/// What our bytes begin with. A protobuf message cannot: field 0 does not exist.
const MARK: &[u8] = b"\0envelope\0";

/// Encodes logical plans.
#[derive(Debug, Default)]
pub(super) struct LogicalCodec(BallistaLogicalExtensionCodec);

/// Encodes physical plans.
#[derive(Debug, Default)]
pub(super) struct PhysicalCodec(BallistaPhysicalExtensionCodec);

impl LogicalExtensionCodec for LogicalCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[LogicalPlan],
        context: &TaskContext,
    ) -> Result<Extension> {
        let Some(ours) = bytes.strip_prefix(MARK) else {
            return self.0.try_decode(bytes, inputs, context);
        };
        let input = only(inputs.to_vec())?;
        let node: Arc<dyn UserDefinedLogicalNode> = match NodeMessage::read(ours)? {
            Node::Map(spec, mapped) => Arc::new(MapNode::new(spec, &mapped, input)?),
            Node::Groups(spec, mapped) => Arc::new(GroupsNode::new(spec, &mapped, input)?),
            Node::Number(_) => return Err(damaged("a node that logical plans do not have")),
            Node::Sink(spec, written) => Arc::new(SinkNode::new(spec, Arc::new(written), input)?),
        };
        Ok(Extension { node })
    }

    fn try_encode(&self, extension: &Extension, bytes: &mut Vec<u8>) -> Result<()> {
        let node = extension.node.as_any();
        let message = if let Some(map) = node.downcast_ref::<MapNode>() {
            NodeMessage::map(&map.spec, map.schema.as_arrow())?
        } else if let Some(groups) = node.downcast_ref::<GroupsNode>() {
            NodeMessage::groups(&groups.spec, groups.schema.as_arrow())?
        } else if let Some(sink) = node.downcast_ref::<SinkNode>() {
            NodeMessage::sink(&sink.spec, &sink.written)?
        } else {
            return self.0.try_encode(extension, bytes);
        };
        write(&message, bytes)
    }

    fn try_decode_table_provider(
        &self,
        bytes: &[u8],
        name: &TableReference,
        schema: SchemaRef,
        context: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        let Some(ours) = bytes.strip_prefix(MARK) else {
            return self
                .0
                .try_decode_table_provider(bytes, name, schema, context);
        };
        let table = TableMessage::decode(ours).map_err(damaged)?;
        let placed = table.placed;
        Ok(Arc::new(SnapshotTable {
            source: Arc::new(table.source()?),
            placed,
        }))
    }

    fn try_encode_table_provider(
        &self,
        name: &TableReference,
        table: Arc<dyn TableProvider>,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        match table.downcast_ref::<SnapshotTable>() {
            Some(SnapshotTable { source, placed }) => {
                let placed = *placed;
                let table = TableMessage::of(source)?;
                write(&TableMessage { placed, ..table }, bytes)
            }
            None => self.0.try_encode_table_provider(name, table, bytes),
        }
    }

    fn try_decode_file_format(
        &self,
        bytes: &[u8],
        context: &TaskContext,
    ) -> Result<Arc<dyn FileFormatFactory>> {
        self.0.try_decode_file_format(bytes, context)
    }

    fn try_encode_file_format(
        &self,
        bytes: &mut Vec<u8>,
        format: Arc<dyn FileFormatFactory>,
    ) -> Result<()> {
        self.0.try_encode_file_format(bytes, format)
    }
}

impl PhysicalExtensionCodec for PhysicalCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(ours) = bytes.strip_prefix(MARK) else {
            return self.0.try_decode(bytes, inputs, context, converter);
        };
        let input = only(inputs.to_vec())?;
        Ok(match NodeMessage::read(ours)? {
            Node::Map(spec, mapped) => Arc::new(MapExec::new(spec, Arc::new(mapped), input)),
            Node::Groups(spec, mapped) => {
                Arc::new(GroupsExec::try_new(spec, Arc::new(mapped), input)?)
            }
            Node::Number(columns) => Arc::new(NumberExec::new(columns, input)),
            Node::Sink(spec, written) => Arc::new(SinkExec::new(spec, Arc::new(written), input)),
        })
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let message = if let Some(map) = node.downcast_ref::<MapExec>() {
            NodeMessage::map(&map.spec, &map.schema())?
        } else if let Some(groups) = node.downcast_ref::<GroupsExec>() {
            NodeMessage::groups(&groups.spec, &groups.schema())?
        } else if let Some(number) = node.downcast_ref::<NumberExec>() {
            NodeMessage::number(&number.columns)?
        } else if let Some(sink) = node.downcast_ref::<SinkExec>() {
            NodeMessage::sink(&sink.spec, &sink.written)?
        } else {
            return self.0.try_encode(node, bytes, converter);
        };
        write(&message, bytes)
    }
}

/// One of our nodes without its input.
enum Node {
    /// With the columns that it gives.
    Map(MapSpec, Schema),
    /// With the columns that it gives.
    Groups(GroupsSpec, Schema),
    /// With the columns that it adds.
    Number([String; 2]),
    /// With the columns of the files.
    Sink(SinkSpec, Schema),
}

#[derive(Clone, PartialEq, Message)]
struct NodeMessage {
    #[prost(oneof = "SpecMessage", tags = "1, 2, 4, 5")]
    spec: Option<SpecMessage>,
    #[prost(message, optional, tag = "3")]
    schema: Option<protobuf::Schema>,
}

/// In JSON.
#[derive(Clone, PartialEq, prost::Oneof)]
enum SpecMessage {
    #[prost(bytes, tag = "1")]
    Map(Vec<u8>),
    #[prost(bytes, tag = "2")]
    Sink(Vec<u8>),
    #[prost(bytes, tag = "4")]
    Groups(Vec<u8>),
    #[prost(bytes, tag = "5")]
    Number(Vec<u8>),
}

impl NodeMessage {
    fn map(spec: &MapSpec, mapped: &Schema) -> Result<Self> {
        Self::new(SpecMessage::Map(json(spec)?), mapped)
    }

    fn groups(spec: &GroupsSpec, mapped: &Schema) -> Result<Self> {
        Self::new(SpecMessage::Groups(json(spec)?), mapped)
    }

    fn number(columns: &[String; 2]) -> Result<Self> {
        Ok(Self {
            spec: Some(SpecMessage::Number(json(columns)?)),
            schema: None,
        })
    }

    fn sink(spec: &SinkSpec, written: &Schema) -> Result<Self> {
        Self::new(SpecMessage::Sink(json(spec)?), written)
    }

    fn new(spec: SpecMessage, schema: &Schema) -> Result<Self> {
        Ok(Self {
            spec: Some(spec),
            schema: Some(sent_schema(schema)?),
        })
    }

    fn read(bytes: &[u8]) -> Result<Node> {
        let Self { spec, schema } = Self::decode(bytes).map_err(damaged)?;
        let schema = || read_schema(schema);
        Ok(
            match spec.ok_or_else(|| damaged("a node without a kind"))? {
                SpecMessage::Map(spec) => Node::Map(read_json(&spec)?, schema()?),
                SpecMessage::Groups(spec) => Node::Groups(read_json(&spec)?, schema()?),
                SpecMessage::Number(columns) => Node::Number(read_json(&columns)?),
                SpecMessage::Sink(spec) => Node::Sink(read_json(&spec)?, schema()?),
            },
        )
    }
}

/// Of a [`Source`], what the plan of its reading is made of. What the driver has decided by is not
/// sent: counts, bounds, promises.
#[derive(Clone, PartialEq, Message)]
struct TableMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    scanned: Option<protobuf::Schema>,
    #[prost(uint64, tag = "3")]
    partition_columns: u64,
    #[prost(message, repeated, tag = "4")]
    files: Vec<FileMessage>,
    #[prost(enumeration = "EncodingMessage", tag = "5")]
    encoding: i32,
    /// In the engine's word for it.
    #[prost(string, tag = "6")]
    compression: String,
    #[prost(string, tag = "7")]
    store: String,
    #[prost(bool, tag = "8")]
    placed: bool,
}

/// Of a [`DataFile`], which it is and what all its rows have in common.
#[derive(Clone, PartialEq, Message)]
struct FileMessage {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(uint64, tag = "2")]
    bytes: u64,
    #[prost(message, repeated, tag = "3")]
    partition_values: Vec<protobuf::ScalarValue>,
}

/// An [`Encoding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum EncodingMessage {
    Parquet = 0,
    Csv = 1,
    JsonLines = 2,
    Arrow = 3,
}

impl From<Encoding> for EncodingMessage {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Parquet => Self::Parquet,
            Encoding::Csv => Self::Csv,
            Encoding::JsonLines => Self::JsonLines,
            Encoding::Arrow => Self::Arrow,
        }
    }
}

impl From<EncodingMessage> for Encoding {
    fn from(encoding: EncodingMessage) -> Self {
        match encoding {
            EncodingMessage::Parquet => Self::Parquet,
            EncodingMessage::Csv => Self::Csv,
            EncodingMessage::JsonLines => Self::JsonLines,
            EncodingMessage::Arrow => Self::Arrow,
        }
    }
}

impl TableMessage {
    fn of(source: &Source) -> Result<Self> {
        let Kind {
            encoding,
            compression,
        } = source.kind;
        Ok(Self {
            name: source.name.clone(),
            store: source.store.clone(),
            scanned: Some(sent_schema(&source.scanned)?),
            partition_columns: source.partition_columns as u64,
            files: source
                .files
                .iter()
                .map(FileMessage::of)
                .collect::<Result<_>>()?,
            encoding: EncodingMessage::from(encoding).into(),
            compression: compression.get_variant().to_string(),
            placed: false,
        })
    }

    fn source(self) -> Result<Source> {
        let scanned = Arc::new(read_schema(self.scanned)?);
        let partition_columns = usize::try_from(self.partition_columns).map_err(damaged)?;
        if partition_columns > scanned.fields().len() {
            return Err(damaged("more partition columns than columns"));
        }
        let encoding = EncodingMessage::try_from(self.encoding).map_err(damaged)?;
        Ok(Source {
            name: self.name,
            store: self.store,
            schema: Arc::clone(&scanned),
            scanned,
            partition_columns,
            files: self
                .files
                .into_iter()
                .map(FileMessage::file)
                .collect::<Result<_>>()?,
            kind: Kind {
                encoding: encoding.into(),
                compression: self.compression.parse()?,
            },
            version: None,
        })
    }
}

impl FileMessage {
    fn of(file: &DataFile) -> Result<Self> {
        let path = file.path.to_str().ok_or_else(|| {
            unsendable(format!("the path `{}` is not UTF-8", file.path.display()))
        })?;
        Ok(Self {
            path: path.to_owned(),
            bytes: file.bytes,
            partition_values: file
                .partition_values
                .iter()
                .map(|value| protobuf::ScalarValue::try_from(value).map_err(unsendable))
                .collect::<Result<_>>()?,
        })
    }

    fn file(self) -> Result<DataFile> {
        Ok(DataFile {
            partition_values: self
                .partition_values
                .iter()
                .map(|value| ScalarValue::try_from(value).map_err(damaged))
                .collect::<Result<_>>()?,
            ..DataFile::new(PathBuf::from(self.path), self.bytes)
        })
    }
}

fn write(message: &impl Message, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.extend_from_slice(MARK);
    message.encode(bytes).map_err(unsendable)
}

fn json(spec: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(spec).map_err(unsendable)
}

fn read_json<S: DeserializeOwned>(bytes: &[u8]) -> Result<S> {
    serde_json::from_slice(bytes).map_err(damaged)
}

fn sent_schema(schema: &Schema) -> Result<protobuf::Schema> {
    protobuf::Schema::try_from(schema).map_err(unsendable)
}

fn read_schema(schema: Option<protobuf::Schema>) -> Result<Schema> {
    let schema = schema.ok_or_else(|| damaged("no schema"))?;
    Schema::try_from(&schema).map_err(damaged)
}

fn unsendable(reason: impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Plan(format!("the plan cannot be sent: {reason}"))
}

fn damaged(reason: impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Plan(format!("the plan that was sent cannot be read: {reason}"))
}

#[cfg(test)]
mod tests;
