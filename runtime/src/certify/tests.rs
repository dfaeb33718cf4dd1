//! What is certified, decided with functions in Rust instead of workers.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array};
use envelope_format::{DataType, Equality, Field, Function, Manifest, Rows, Shape};

use super::examine::examine;
use super::*;

type Answer = Result<Vec<f64>, String>;

/// A function of one column of floats.
struct Fake<F> {
    function: F,
    asked: Vec<(Whom, usize)>,
}

impl<F: FnMut(Whom, &[f64]) -> Answer + Send> Workers for Fake<F> {
    async fn ask(&mut self, whom: Whom, Ask { rows, .. }: Ask) -> Result<Heard, Error> {
        self.asked.push((whom, rows.num_rows()));
        let values = rows
            .column(0)
            .as_primitive::<Float64Type>()
            .values()
            .to_vec();
        Ok(match (self.function)(whom, &values) {
            Ok(values) => Heard::Rows(column(values)),
            Err(reason) => Heard::Refused(reason),
        })
    }

    async fn ask_two(&mut self, first: Ask, second: Ask) -> Result<[Heard; 2], Error> {
        let first = self.ask(Whom::First, first).await?;
        Ok([first, self.ask(Whom::First, second).await?])
    }
}

fn column(values: Vec<f64>) -> RecordBatch {
    RecordBatch::try_from_iter([("x", Arc::new(Float64Array::from(values)) as ArrayRef)]).unwrap()
}

fn function(output: Shape) -> Function {
    let mut function = Manifest::example().functions.remove(0);
    let rows = |shape| Rows {
        shape,
        fields: vec![Field::new("x", DataType::Float64, false)],
    };
    function.signature.input = rows(Shape::NumpyVector);
    function.signature.output = rows(output);
    function
}

async fn tested_with(
    sample: Vec<f64>,
    shape: Shape,
    trials: Trials,
    tested: impl FnMut(Whom, &[f64]) -> Answer + Send,
) -> (Certified, Vec<(Whom, usize)>) {
    let mut fake = Fake {
        function: tested,
        asked: vec![],
    };
    let function = function(shape);
    let sample = column(sample);
    let certified = examine(&function, &sample, &mut fake, trials, &|_, _| ());
    let certified = certified.await.unwrap();
    (certified, fake.asked)
}

async fn tested(tested: impl FnMut(Whom, &[f64]) -> Answer + Send) -> Certified {
    let sample = (0..40).map(|value| f64::from(value) * 1.25 - 7.0).collect();
    tested_with(sample, Shape::NumpyVector, Trials::default(), tested)
        .await
        .0
}

fn each(values: &[f64], map: impl Fn(f64) -> f64) -> Answer {
    Ok(values.iter().copied().map(map).collect())
}

fn double(values: &[f64]) -> Answer {
    each(values, |value| value * 2.0)
}

#[tokio::test]
async fn equal_bits_at_any_number_of_rows_are_bitwise() {
    let found = tested(|_, values| double(values)).await.certificate;
    assert!(found.row_wise, "{found:?}");
    assert_eq!((found.equality, found.tile), (Equality::Bitwise, None));
    assert_eq!((found.tolerance, found.reason), (None, None));
    assert_eq!(found.seed, Trials::default().seed);
    assert!(found.trials > 100);
}

#[tokio::test]
async fn the_smallest_tile_that_gives_equal_bits_is_found() {
    // As linear algebra does: another kernel for what is left over.
    let product = |values: &[f64], tile: usize| {
        let whole = values.len() - values.len() % tile;
        let error = |place: usize| if place < whole { 0.0 } else { 1e-15 };
        let places = values.iter().enumerate();
        Ok(places
            .map(|(place, value)| value * 2.0 * (1.0 + error(place)))
            .collect())
    };
    for tile in [2, 8, 64] {
        let certified = tested(|_, values| product(values, tile)).await;
        let found = certified.certificate;
        assert!(found.row_wise, "{found:?}");
        assert_eq!(found.equality, Equality::Bitwise);
        assert_eq!(found.tile, u32::try_from(tile).ok());
        assert_eq!(found.tolerance, None);
        let sample = certified.output.unwrap();
        let first = sample.column(0).as_primitive::<Float64Type>().value(39);
        assert_eq!(first.to_bits(), ((39.0 * 1.25 - 7.0) * 2.0_f64).to_bits());
    }
}

#[tokio::test]
async fn without_a_tile_the_tolerance_is_above_every_difference() {
    for (error, tolerance) in [(1e-15, 1e-12), (1e-12, 1e-9), (1e-10, 1e-9), (4e-7, 1e-6)] {
        let found = tested(|_, values| {
            #[expect(clippy::cast_precision_loss, reason = "few rows")]
            let noise = error * ((values.len() * 31 % 17) as f64 / 17.0);
            each(values, |value| value * 2.0 * (1.0 + noise))
        })
        .await
        .certificate;
        assert!(found.row_wise, "{found:?}");
        assert_eq!((found.equality, found.tile), (Equality::Close, None));
        assert_eq!(found.tolerance, Some(tolerance));
    }
}

#[tokio::test]
async fn a_row_that_is_refused_alone_is_refused_in_company() {
    let strict = |values: &[f64]| {
        if values
            .iter()
            .any(|value| value.abs() > 60.0 || value.is_nan())
        {
            return Err("too far away".to_owned());
        }
        double(values)
    };
    assert!(
        tested(|_, values| strict(values))
            .await
            .certificate
            .row_wise
    );
    let lenient = |values: &[f64]| match values {
        [_] => strict(values),
        _ => double(values),
    };
    let found = tested(|_, values| lenient(values)).await.certificate;
    assert_eq!(
        found.reason.as_deref(),
        Some("among other rows it takes a row that it refuses alone")
    );
}

#[tokio::test]
async fn a_row_that_is_taken_alone_is_taken_in_company() {
    let found = tested(|_, values| {
        if values.len() > 1 && values.iter().any(|value| value.is_nan()) {
            return Err("it raised ValueError: NaN".to_owned());
        }
        double(values)
    })
    .await
    .certificate;
    assert!(!found.row_wise);
    let reason = found.reason.unwrap();
    assert!(reason.ends_with("ValueError: NaN"), "{reason}");
}

#[tokio::test]
async fn no_rows_may_be_refused_but_give_nothing() {
    let refusing = |values: &[f64]| match values {
        [] => Err("no rows".to_owned()),
        _ => double(values),
    };
    assert!(
        tested(|_, values| refusing(values))
            .await
            .certificate
            .row_wise
    );
    let found = tested(|_, values| match values {
        [] => Ok(vec![0.0]),
        _ => double(values),
    });
    let reason = found.await.certificate.reason;
    assert_eq!(reason.as_deref(), Some("it gave 1 rows for none"));
}

#[tokio::test]
async fn another_worker_must_agree() {
    let found = tested(|whom, values| match whom {
        Whom::First => double(values),
        Whom::Fresh => each(values, |value| value * 2.5),
    });
    let reason = found.await.certificate.reason.unwrap();
    assert!(reason.starts_with("in another process"), "{reason}");
}

#[tokio::test]
async fn one_row_is_mixed_with_others_that_are_made_up() {
    let one = vec![3.0];
    let centred = |values: &[f64]| {
        #[expect(clippy::cast_precision_loss, reason = "few rows")]
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        each(values, |value| value - mean)
    };
    let vector = Shape::NumpyVector;
    let trials = Trials::default();
    let (found, _) = tested_with(one.clone(), vector, trials, |_, values| double(values)).await;
    assert!(found.certificate.row_wise, "{found:?}");
    let (found, _) = tested_with(one.clone(), vector, trials, |_, values| centred(values)).await;
    assert!(!found.certificate.row_wise);
    let picky = |values: &[f64]| {
        if values.iter().any(|value| *value != 3.0) {
            return Err("only 3".to_owned());
        }
        double(values)
    };
    let (found, _) = tested_with(one, vector, trials, |_, values| picky(values)).await;
    let reason = found.certificate.reason.unwrap();
    assert!(reason.contains("nothing can be mixed"), "{reason}");
}

#[tokio::test]
async fn a_function_that_gives_one_row_is_a_reducer() {
    let sample = vec![1.0, 2.0, 3.0];
    let trials = Trials::default();
    // A worker asks such a function for each row.
    let (found, _) = tested_with(sample.clone(), Shape::Scalar, trials, |_, v| double(v)).await;
    let certificate = found.certificate;
    assert!(certificate.reducer && !certificate.row_wise);
    assert_eq!(certificate.equality, Equality::Bitwise);
    let reason = "it gives one row for all the rows of a call";
    assert_eq!(certificate.reason.as_deref(), Some(reason));
    let mut calls = 0.0;
    let counting = |_, values: &[f64]| {
        calls += 1.0;
        each(values, |value| value + calls)
    };
    let (found, _) = tested_with(sample, Shape::Scalar, trials, counting).await;
    assert!(found.certificate.reducer);
    assert_eq!(found.certificate.equality, Equality::None);
}

#[tokio::test]
async fn trials_that_time_ended_are_not_counted() {
    let trials = Trials {
        limit: Duration::from_millis(1),
        ..Trials::default()
    };
    let sample = vec![1.0, 2.0, 3.0];
    let slow = |_: Whom, values: &[f64]| {
        std::thread::sleep(Duration::from_micros(20));
        double(values)
    };
    let (found, asked) = tested_with(sample, Shape::NumpyVector, trials, slow).await;
    let certificate = found.certificate;
    assert!(
        certificate
            .planned
            .is_some_and(|planned| planned > certificate.trials)
            || certificate
                .reason
                .is_some_and(|reason| reason.contains("too slow")),
    );
    assert!(asked.len() >= certificate.trials as usize);
}

#[tokio::test]
async fn the_same_seed_makes_the_same_trials() {
    let sample: Vec<f64> = (0..20).map(f64::from).collect();
    let run = |seed| {
        let trials = Trials {
            seed,
            ..Trials::default()
        };
        let mut sums = vec![];
        let sample = sample.clone();
        async move {
            let note = |_, values: &[f64]| {
                sums.push(
                    values
                        .iter()
                        .map(|value| value.to_bits() % 10_007)
                        .collect::<Vec<_>>(),
                );
                double(values)
            };
            tested_with(sample, Shape::NumpyVector, trials, note).await;
            sums.truncate(200);
            sums
        }
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}
