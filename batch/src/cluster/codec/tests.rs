//! Plans go out and come back.

use std::num::NonZeroUsize;
use std::time::Duration;

use arrow_schema::{DataType, Field};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::SessionState;
use datafusion::physical_plan::displayable;
use datafusion_proto::logical_plan::AsLogicalPlan as _;
use datafusion_proto::physical_plan::AsExecutionPlan as _;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use envelope_format::{Digest, Manifest};

use super::*;
use crate::durable::DurableStore;
use crate::fake::{Fake, schema_of};
use crate::function::Callable;
use crate::plan;
use crate::scan::beginning;

/// Two files of a table that is partitioned by `day` and `part`.
fn source() -> Source {
    let file = |name: &str, day: i32, part: Option<&str>| DataFile {
        partition_values: vec![
            ScalarValue::Date32(Some(day)),
            ScalarValue::Utf8(part.map(Into::into)),
        ],
        ..DataFile::new(format!("/t/day={day}/a b%20{name}.parquet").into(), 1000)
    };
    let decimal = DataType::Decimal128(20, 4);
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int32, true)));
    let columns = schema_of(&[
        ("id", DataType::Int64, false),
        ("x", DataType::Float64, true),
        ("price", decimal, false),
        ("tags", list, true),
        ("day", DataType::Date32, true),
        ("part", DataType::Utf8, true),
    ]);
    Source {
        partition_columns: 2,
        files: vec![file("1", 7, Some("ü/é")), file("2", 8, None)],
        ..Source::without_files("/t", columns)
    }
}

fn map_spec() -> MapSpec {
    MapSpec {
        digest: Digest::of(b"fake"),
        function: "double".into(),
        signature: Manifest::example().functions.remove(0).signature,
        tile: Some(8),
        keep: vec!["id".into(), "part".into()],
        given: vec!["prediction".into()],
        batch_rows: 512,
        paced: true,
        call_deadline: Duration::from_millis(1_500),
        table: "/t".into(),
    }
}

fn groups_spec() -> GroupsSpec {
    GroupsSpec {
        map: MapSpec {
            keep: vec!["part".into(), "id".into()],
            ..map_spec()
        },
        by: 1,
        place: ["part_".into(), "row".into()],
        max_group_bytes: 1 << 20,
    }
}

fn sink_spec() -> SinkSpec {
    SinkSpec {
        store: "file:///".into(),
        folder: "out".into(),
        job: "0123".into(),
        splits: Some("out/notes".into()),
        filter: Some("x > 1".into()),
        partition_by: vec!["part".into()],
        file_rows: 1000,
        statistics: true,
    }
}

fn planned() -> LogicalPlan {
    let output = schema_of(&[
        ("id", DataType::Int64, false),
        ("part", DataType::Utf8, true),
        ("prediction", DataType::Float64, false),
    ]);
    let scanned = plan::scan(SnapshotTable::new(Arc::new(source())), vec![0, 1, 5], None).unwrap();
    let mapped = plan::map(map_spec(), &output, scanned).unwrap();
    plan::sink(sink_spec(), &output, mapped).unwrap()
}

/// The same with rows that are grouped by `part`.
fn grouped() -> LogicalPlan {
    let output = schema_of(&[
        ("part", DataType::Utf8, true),
        ("id", DataType::Int64, false),
        ("prediction", DataType::Float64, false),
    ]);
    let scanned = plan::scan(
        SnapshotTable::new(Arc::new(source())).placed(),
        vec![0, 1, 5],
        None,
    )
    .unwrap();
    let mapped = plan::groups(groups_spec(), &output, scanned).unwrap();
    plan::sink(sink_spec(), &output, mapped).unwrap()
}

fn session() -> SessionState {
    let cut = plan::Cut {
        count: NonZeroUsize::new(2).unwrap(),
        fixed: true,
    };
    let callable = Callable::new(Arc::new(Fake::new()), cut.count);
    let envelope = plan::Callables::of([(Digest::of(b"fake"), callable)]);
    let files = Arc::new(DurableStore::local());
    let environment = crate::Stores::default().environment(files).unwrap();
    plan::session(envelope, environment, cut, 512)
}

fn encoded(plan: &LogicalPlan) -> LogicalPlanNode {
    LogicalPlanNode::try_from_logical_plan(plan, &LogicalCodec::default()).unwrap()
}

fn sent(plan: &LogicalPlan) -> LogicalPlan {
    encoded(plan)
        .try_into_logical_plan(&TaskContext::default(), &LogicalCodec::default())
        .unwrap()
}

#[test]
fn a_logical_plan_comes_back_as_it_was() {
    for plan in [planned(), grouped()] {
        comes_back(plan);
    }
}

fn comes_back(plan: LogicalPlan) {
    let back = sent(&plan);
    assert_eq!(
        back.display_indent_schema().to_string(),
        plan.display_indent_schema().to_string()
    );
    let (LogicalPlan::Extension(sent), LogicalPlan::Extension(back)) = (plan, back) else {
        panic!("the sink is on top");
    };
    let sink = |node: &Extension| {
        node.node
            .as_any()
            .downcast_ref::<SinkNode>()
            .cloned()
            .unwrap()
    };
    let (sent, back) = (sink(&sent), sink(&back));
    assert_eq!((sent.spec, sent.written), (back.spec, back.written));
}

#[test]
fn a_table_comes_back_with_all_its_files() {
    let message = TableMessage::of(&source()).unwrap();
    let mut bytes = vec![];
    write(&message, &mut bytes).unwrap();
    let back = TableMessage::decode(bytes.strip_prefix(MARK).unwrap())
        .unwrap()
        .source()
        .unwrap();
    assert_eq!(format!("{back:?}"), format!("{:?}", source()));
}

/// A physical plan, and what an executor makes of it, which is told in the same words.
async fn there_and_back(plan: &LogicalPlan) -> (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>) {
    let session = session();
    let plan = session.create_physical_plan(plan).await.unwrap();
    let codec = PhysicalCodec::default();
    let node = PhysicalPlanNode::try_from_physical_plan(Arc::clone(&plan), &codec).unwrap();
    let back = node
        .try_into_physical_plan(&session.task_ctx(), &codec)
        .unwrap();
    let told = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(true).to_string();
    assert_eq!(told(&back), told(&plan));
    (plan, back)
}

#[tokio::test]
async fn a_physical_plan_with_groups_comes_back_as_it_was() {
    let (plan, back) = there_and_back(&grouped()).await;
    let groups = |plan: &Arc<dyn ExecutionPlan>| {
        let groups = Arc::clone(plan.children()[0]);
        let groups = groups.downcast_ref::<GroupsExec>().unwrap();
        (groups.spec.as_ref().clone(), groups.schema())
    };
    assert_eq!(groups(&back), groups(&plan));
}

/// As a task gets the plan: one partition, numbered from 0 again.
#[tokio::test]
async fn a_part_that_is_cut_out_of_a_plan_still_knows_where_in_the_table_it_begins() {
    let session = session();
    let mut places = vec![];
    for plan in [grouped(), sent(&grouped())] {
        let mut node = session.create_physical_plan(&plan).await.unwrap();
        while let [child] = node.children()[..] {
            node = Arc::clone(child);
        }
        let scan = node.downcast_ref::<DataSourceExec>().unwrap();
        let scan = scan.data_source().downcast_ref::<FileScanConfig>();
        let parts = scan.unwrap().file_groups.iter();
        places.push(parts.map(beginning).collect::<Vec<_>>());
    }
    assert_eq!(places, [[Some(0), Some(1000)], [Some(0), Some(1000)]]);
}

#[tokio::test]
async fn a_physical_plan_comes_back_as_it_was() {
    let (plan, back) = there_and_back(&planned()).await;
    let input = |plan: &Arc<dyn ExecutionPlan>| Arc::clone(plan.children()[0]);
    let map = |plan: &Arc<dyn ExecutionPlan>| {
        let map = input(plan);
        let map = map.downcast_ref::<MapExec>().unwrap();
        (map.spec.as_ref().clone(), map.schema())
    };
    assert_eq!(map(&back), map(&plan));
}

#[test]
fn a_damaged_plan_is_refused_without_a_panic() {
    let whole = NodeMessage::map(&map_spec(), &schema_of(&[("y", DataType::Float64, false)]));
    let whole = whole.unwrap().encode_to_vec();
    for length in 0..whole.len() {
        assert!(
            NodeMessage::read(&whole[..length]).is_err(),
            "{length} bytes"
        );
    }
    let table = TableMessage::of(&source()).unwrap().encode_to_vec();
    for length in 0..table.len() {
        let read = TableMessage::decode(&table[..length]).map_err(damaged);
        _ = read.and_then(TableMessage::source);
    }
}
