//! Capture of what endpoints really answer: whole answers, streams, and nothing of what failed.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use serving::{
    BoxFuture, CaptureFormat, CapturePlan, CaptureSettings, CaptureStore, CapturedBody, CapturedInvocation,
    Captures, Segment,
};

use crate::scene::{ENDPOINT, Scene, order, variant};

#[derive(Default)]
struct Memory(Mutex<Vec<(String, Value)>>);

impl CaptureStore for Memory {
    fn deliver<'a>(&'a self, _: &'a Value, segment: &'a Segment) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let mut lines = Vec::new();
            segment
                .read(|line| {
                    lines.push((segment.variant.clone(), serde_json::from_slice(line)?));
                    Ok(())
                })
                .map_err(|error| error.to_string())?;
            self.0.lock().unwrap().extend(lines);
            Ok(())
        })
    }

    fn lost<'a>(&'a self, _: &'a Value, count: u64) -> BoxFuture<'a, ()> {
        panic!("{count} are lost")
    }
}

struct Texts;

impl CaptureFormat for Texts {
    fn write(&self, captured: &CapturedInvocation, line: &mut Vec<u8>) {
        let text = |body: &Option<CapturedBody>| {
            body.as_ref().map(|body| String::from_utf8_lossy(&body.data).into_owned())
        };
        let value = json!([captured.custom_attributes, text(&captured.input), text(&captured.output)]);
        line.extend_from_slice(value.to_string().as_bytes());
    }
}

#[tokio::test]
async fn whole_answers_and_streams_are_captured_and_failures_are_not() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("main", &scene.model("one"))]).await;
    let store = Arc::new(Memory::default());
    let settings = CaptureSettings {
        streamed_limit_bytes: 20,
        ..CaptureSettings::new(scene.path("captures"), Arc::<Memory>::clone(&store), Arc::new(|| 0))
    };
    let captures = Captures::open(settings).unwrap();
    let plan = |input, output| CapturePlan {
        percentage: 100,
        input,
        output,
        target: json!([input, output]),
        format: Arc::new(Texts),
    };
    let capture = |input, output| Some(captures.start(ENDPOINT, plan(input, output)).unwrap());
    scene.data_plane.set_capture(ENDPOINT, capture(true, true));
    assert_eq!(scene.ask("version").await, "one");
    scene.invoke(order("raise:luck")).await.unwrap_err();
    let mut stream = scene.data_plane.invoke_stream(ENDPOINT, order("stream:3")).await.unwrap();
    while stream.next_chunk().await.is_some() {}
    let mut broken = scene.data_plane.invoke_stream(ENDPOINT, order("broken:1")).await.unwrap();
    while broken.next_chunk().await.is_some() {}
    let mut left = scene.data_plane.invoke_stream(ENDPOINT, order("stream:1000000000")).await.unwrap();
    left.next_chunk().await.unwrap().unwrap();
    drop(left);
    captures.flush().await;
    scene.data_plane.set_capture(ENDPOINT, capture(false, true));
    scene.ask("version").await;
    scene.data_plane.set_capture(ENDPOINT, None);
    scene.ask("version").await;
    captures.flush().await;
    let captured = std::mem::take(&mut *store.0.lock().unwrap());
    let expected = [
        json!(["version", "", "one"]),
        json!(["stream:3", "", "piece 0;piece 1;piec"]),
        json!(["version", null, "one"]),
    ];
    assert_eq!(captured, expected.map(|line| ("main".to_owned(), line)));
}
