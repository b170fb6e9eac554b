//! Smithy RPC v2 CBOR.

use bytes::Bytes;
use http::Request;

use crate::fixture::{Answered, Door};

async fn call(door: &Door, operation: &str, body: impl Into<Bytes>) -> Answered {
    let request = Request::post(format!("/service/Meters/operation/{operation}"))
        .header("smithy-protocol", "rpc-v2-cbor")
        .header("content-type", "application/cbor")
        .header("x-amzn-query-mode", "true");
    door.signed("meters", request, body).await
}

fn bytes(text: &str) -> Bytes {
    hex::decode(text.replace([' ', '\n'], "")).unwrap().into()
}

/// `{"WidgetName": "a-b", "Count": 7, "Size": 9007199254740993, "Ratio": 0.25, "Flag": true, "MadeAt": 1(1769860800.5),
/// "Bytes": h'000102', "Names": ["b", "a"], "Tags": {"k": "v"}, "Parts": [{"PartName": "p"}]}` as clients write it.
const WIDGET: &str = "aa
    6a5769646765744e616d65 63612d62
    65436f756e74 07
    6453697a65 1b0020000000000001
    65526174696f fb3fd0000000000000
    64466c6167 f5
    664d6164654174 c1 fb41da5f7ccc200000
    654279746573 43000102
    654e616d6573 82 6162 6161
    6454616773 a1 616b 6176
    655061727473 81 a1 68506172744e616d65 6170";

#[tokio::test]
async fn all_types_go_in_and_out_byte_by_byte() {
    let door = Door::new();
    let answer = call(&door, "PutMeter", bytes(WIDGET)).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/cbor"),
        "{:?}",
        answer.body
    );
    assert_eq!(answer.header("smithy-protocol"), "rpc-v2-cbor");
    assert_eq!(hex::encode(&answer.body), hex::encode(bytes(WIDGET)));
}

#[tokio::test]
async fn forms_that_clients_vary_are_made_one() {
    let door = Door::new();
    // Lengths that are not stated, text in parts, a whole number for a moment, a short float, null and undefined members.
    let varied = "bf
        6a5769646765744e616d65 7f 6161 622d62 ff
        65526174696f f93400
        664d6164654174 c1 1a697dedc0
        6454657874 f6
        64466c6167 f7
        654e616d6573 9f 6162 ff ff";
    let expected = "a4
        6a5769646765744e616d65 63612d62
        65526174696f fb3fd0000000000000
        664d6164654174 c1 1a697dedc0
        654e616d6573 81 6162";
    let answer = call(&door, "PutMeter", bytes(varied)).await;
    assert_eq!(hex::encode(&answer.body), hex::encode(bytes(expected)));
}

#[tokio::test]
async fn operations_without_output_answer_nothing() {
    let door = Door::new();
    for body in ["", "a0"] {
        let answer = call(&door, "ResetMeter", bytes(body)).await;
        assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (200, 0, ""));
        assert_eq!(answer.header("smithy-protocol"), "rpc-v2-cbor");
    }
}

#[tokio::test]
async fn errors_have_their_type_in_the_body() {
    let door = Door::new();
    // {"WidgetName": "in-use"}
    let answer = call(&door, "PutMeter", bytes("a1 6a5769646765744e616d65 66696e2d757365")).await;
    assert_eq!((answer.status, answer.header("content-type")), (400, "application/cbor"));
    // {"__type": "WidgetInUse", "Holder": "me", "Message": "the widget <in-use>"}
    let expected = "a3 665f5f74797065 6b576964676574496e557365 66486f6c646572 626d65
        674d657373616765 737468652077696467657420 3c696e2d7573653e";
    assert_eq!(hex::encode(&answer.body), hex::encode(bytes(expected)));
    // {"WidgetName": "missing"}
    let answer = call(&door, "PutMeter", bytes("a1 6a5769646765744e616d65 676d697373696e67")).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("x-amzn-query-error"), "Widgets.Missing;Sender");
    // An error before the operation is known.
    let answer = call(&door, "Nothing", "").await;
    assert_eq!((answer.status, &*answer.code()), (400, "UnknownOperationException"));
    assert_eq!(answer.body[0], 0xa2);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let door = Door::new();
    for (body, place) in [
        ("00", "must be a CBOR map"),
        ("a1", "not valid CBOR"),
        ("a0 00", "goes on after"),
        ("ff", "not valid CBOR"),
        ("a1 00 00", "a key of a map is not text"),
        ("a1 654e616d6573 9bffffffffffffffff", "not valid CBOR"),
        ("a1 65436f756e74 6137", "Count must be a number, not a string"),
        ("a1 65526174696f f97e00", "The value NaN for parameter Ratio is invalid"),
        ("a1 65526174696f f97c00", "The value Infinity for parameter Ratio is invalid"),
        ("a1 664d6164654174 c2 4101", "only tag 1"),
    ] {
        let answer = call(&door, "PutMeter", bytes(body)).await;
        assert_eq!((answer.status, &*answer.code()), (400, "SerializationException"), "{body}");
        let text = String::from_utf8_lossy(&answer.body);
        assert!(text.contains(place), "{body}: {text}");
    }
    let answer = call(&door, "PutMeter", bytes("a1 654e6f76656c 01")).await;
    assert_eq!((answer.status, &*answer.code()), (400, "ValidationException"));
}

#[tokio::test]
async fn nothing_of_any_bytes_is_our_fault() {
    let door = Door::new();
    let whole = bytes(WIDGET);
    for at in 0..whole.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut body = whole.to_vec();
            body[at] ^= flip;
            assert!(call(&door, "PutMeter", body).await.status < 500, "byte {at} with {flip:x}");
        }
        assert!(call(&door, "PutMeter", whole.slice(..at)).await.status < 500, "cut at {at}");
    }
}
