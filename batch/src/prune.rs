//! Leaves out the files that a filter selects no row of.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, UInt64Array};
use datafusion::common::Column;
use datafusion::common::pruning::PruningStatistics;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::scalar::ScalarValue;

use crate::filter::Filter;
use crate::source::{DataFile, Source};

impl Source {
    /// The same table without files that have no row that `filter` selects. How many rows the
    /// others have, and what they lack, is not known any more.
    pub(crate) fn filtered(mut self, filter: &Filter) -> Self {
        let keep = PruningPredicateBuilder::new()
            .with_file_schema(Arc::clone(&self.scanned))
            .try_build(Arc::clone(&filter.physical))
            .and_then(|predicate| predicate.prune(&Known(&self)));
        // What cannot be left out is read, and its rows are looked at one by one.
        let keep = keep.unwrap_or_else(|_| vec![true; self.files.len()]);
        let files = std::mem::take(&mut self.files).into_iter().zip(keep);
        self.files = files
            .filter(|(_, keep)| *keep)
            .map(|(file, _)| DataFile {
                rows: None,
                columns_with_nulls: HashSet::new(),
                ..file
            })
            .collect();
        self
    }
}

/// What is known of the files of a table without reading them.
struct Known<'s>(&'s Source);

impl Known<'_> {
    /// A bound of the column in each file: the value itself where it is one of a partition.
    fn bounds(
        &self,
        column: &Column,
        of_range: impl Fn(&(ScalarValue, ScalarValue)) -> ScalarValue,
    ) -> Option<ArrayRef> {
        let field = self.0.scanned.field_with_name(&column.name).ok()?;
        let missing = ScalarValue::try_new_null(field.data_type()).ok()?;
        let partition = self.partition(column);
        let bound = |file: &DataFile| match partition {
            Some(position) => file.partition_values[position].clone(),
            None => file
                .ranges
                .get(&column.name)
                .map_or_else(|| missing.clone(), &of_range),
        };
        ScalarValue::iter_to_array(self.0.files.iter().map(bound)).ok()
    }

    fn partition(&self, column: &Column) -> Option<usize> {
        let fields = self.0.partition_fields();
        fields.iter().position(|field| *field.name() == column.name)
    }
}

impl PruningStatistics for Known<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |(min, _)| min.clone())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |(_, max)| max.clone())
    }

    fn num_containers(&self) -> usize {
        self.0.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let position = self.partition(column)?;
        let nulls = |file: &DataFile| match file.partition_values[position].is_null() {
            true => file.rows,
            false => Some(0),
        };
        Some(Arc::new(
            self.0.files.iter().map(nulls).collect::<UInt64Array>(),
        ))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let rows = self.0.files.iter().map(|file| file.rows);
        Some(Arc::new(rows.collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
