//! The files of one partition of the sink that take rows at the moment.

use arrow_array::RecordBatch;
use datafusion::error::Result as EngineResult;

use super::Sink;
use crate::Error;
use crate::layout::{Layout, Values};
use crate::part_file::{Part, PartFile};

/// So many folders get rows at a time. One more, and the file ends that has not got any for longest:
/// rows that come in no order make more files, but no more open ones, and no more memory.
const MOST: usize = 32;

/// Files that take rows, one for each folder, and those that are complete.
pub(super) struct OpenFiles<'s> {
    sink: &'s Sink,
    layout: &'s Layout,
    /// The one that got rows last comes last.
    open: Vec<PartFile>,
    begun: usize,
    parts: Vec<Part>,
}

impl<'s> OpenFiles<'s> {
    pub(super) fn new(sink: &'s Sink, layout: &'s Layout) -> Self {
        Self {
            sink,
            layout,
            open: vec![],
            begun: 0,
            parts: vec![],
        }
    }

    /// Writes rows to the files of their folders; begins a file only when there is a row for it.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> EngineResult<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        for (values, share) in self.layout.share_out(rows)? {
            let written = self.write_share(values, &share).await;
            written.map_err(Error::into_engine)?;
        }
        Ok(())
    }

    async fn write_share(&mut self, values: Values, rows: &RecordBatch) -> Result<(), Error> {
        let position = self.open.iter().position(|file| *file.values() == values);
        let mut file = match position {
            Some(position) => self.open.remove(position),
            None => self.begin(values).await?,
        };
        file.write(rows).await?;
        if file.rows() >= self.sink.spec.file_rows {
            return self.end(file).await;
        }
        self.open.push(file);
        Ok(())
    }

    async fn begin(&mut self, values: Values) -> Result<PartFile, Error> {
        if self.open.len() == MOST {
            let oldest = self.open.remove(0);
            self.end(oldest).await?;
        }
        let position = self.begun;
        self.begun += 1;
        self.sink.begin(position, self.layout, values)
    }

    async fn end(&mut self, file: PartFile) -> Result<(), Error> {
        self.parts.push(self.sink.finish(file).await?);
        Ok(())
    }

    /// Completes all files.
    pub(super) async fn finish(mut self) -> Result<Vec<Part>, Error> {
        for file in std::mem::take(&mut self.open) {
            self.end(file).await?;
        }
        Ok(self.parts)
    }
}
