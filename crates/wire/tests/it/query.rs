//! The query protocol.

use crate::fixture::Door;

#[tokio::test]
async fn all_types_go_in_as_keys_and_out_as_xml() {
    let door = Door::new();
    let form = "Action=PutMeter&Version=2026-01-01&WidgetName=a-b&Count=7&Size=9007199254740993&Ratio=0.25&Flag=true\
        &MadeAt=2026-01-31T12%3A00%3A00.5Z&Bytes=AAEC&Names.member.2=b&Names.member.1=a&Item.1=x%20y&Item.2=%26\
        &Tags.entry.1.key=k&Tags.entry.1.value=v+w&FlatTags.1.Name=n&FlatTags.1.Value=1\
        &Parts.member.1.PartName=p&Parts.member.1.Sub.member.1.PartName=q&Choice.One=1&PartMap.entry.1.key=m&PartMap.entry.1.value.PartName=r";
    let answer = door.query(form).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/xml"), "{}", answer.text());
    let id = answer.header("x-amzn-requestid");
    let expected = format!(
        "<PutMeterResponse xmlns=\"https://meters.example/doc/\"><PutMeterResult><WidgetName>a-b</WidgetName>\
         <Count>7</Count><Size>9007199254740993</Size><Ratio>0.25</Ratio><Flag>true</Flag>\
         <MadeAt>2026-01-31T12:00:00.500Z</MadeAt><Bytes>AAEC</Bytes>\
         <Names><member>a</member><member>b</member></Names><Item>x y</Item><Item>&amp;</Item>\
         <Tags><entry><key>k</key><value>v w</value></entry></Tags>\
         <FlatTags><Name>n</Name><Value>1</Value></FlatTags>\
         <Parts><member><PartName>p</PartName><Sub><member><PartName>q</PartName></member></Sub></member></Parts>\
         <Choice><One>1</One></Choice><PartMap><entry><key>m</key><value><PartName>r</PartName></value></entry></PartMap>\
         </PutMeterResult><ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></PutMeterResponse>"
    );
    assert_eq!(answer.text(), expected);
}

#[tokio::test]
async fn empty_collections_and_operations_without_output() {
    let door = Door::new();
    let answer = door.query("Action=PutMeter&WidgetName=a&Names=&Tags=").await;
    assert!(
        answer.text().contains(
            "<PutMeterResult><WidgetName>a</WidgetName><Names></Names><Tags></Tags></PutMeterResult>"
        )
    );
    let answer = door.query("Action=ResetMeter").await;
    let id = answer.header("x-amzn-requestid");
    let expected = format!(
        "<ResetMeterResponse xmlns=\"https://meters.example/doc/\"><ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></ResetMeterResponse>"
    );
    assert_eq!(answer.text(), expected);
}

#[tokio::test]
async fn parameters_may_stand_in_the_url() {
    let door = Door::new();
    let answer = door.signed("meters", http::Request::get("/?Action=PutMeter&WidgetName=a"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request =
        http::Request::post("/?WidgetName=a").header("content-type", "application/x-www-form-urlencoded");
    let answer = door.signed("meters", request, "Action=PutMeter&WidgetName=b").await;
    assert_eq!((answer.status, &*answer.code()), (400, "SerializationException"));
}

#[tokio::test]
async fn errors_are_xml_with_the_request_id() {
    let door = Door::new();
    let answer = door.query("Action=PutMeter&WidgetName=missing").await;
    let id = answer.header("x-amzn-requestid").to_owned();
    let expected = format!(
        "<ErrorResponse xmlns=\"https://meters.example/doc/\"><Error><Type>Sender</Type><Code>Widgets.Missing</Code>\
         <Message>the widget &lt;missing&gt;</Message></Error><RequestId>{id}</RequestId></ErrorResponse>"
    );
    assert_eq!((answer.status, answer.text()), (404, &*expected));
    let answer = door.query("Action=PutMeter&WidgetName=in-use").await;
    assert!(answer.text().contains("<Holder>me</Holder></Error>"));
    let answer = door.query("Action=PutMeter&WidgetName=panic").await;
    assert!(answer.text().contains("<Type>Receiver</Type><Code>InternalFailure</Code>"));
    assert_eq!(answer.status, 500);
}

#[tokio::test]
async fn malformed_and_unknown_parameters_are_named() {
    let door = Door::new();
    for (form, code, text) in [
        ("WidgetName=%zz", "SerializationException", "percent escape"),
        ("WidgetName=a&WidgetName=b", "SerializationException", "WidgetName is given more than once"),
        ("Count=many", "SerializationException", "Count must be a whole number"),
        ("Ratio=NaN", "SerializationException", "The value NaN for parameter Ratio is invalid"),
        ("Flag=yes", "SerializationException", "Flag must be true or false"),
        ("Names.member.one=a", "SerializationException", "Names must be numbered from 1"),
        ("Names.member.1=a&Names.member.01=b", "SerializationException", "each number once"),
        ("Names=text", "SerializationException", "Names must be given by its parts"),
        ("Tags.entry.1.value=v", "SerializationException", "have a key"),
        ("Tags.entry.1.key=a&Tags.entry.2.key=a", "SerializationException", "each key once"),
        ("Novel=1", "ValidationException", "Novel"),
        ("Parts.member.1.Novel=1", "ValidationException", "Parts[0].Novel"),
        ("WidgetName.Deep=1", "ValidationException", "WidgetName.Deep"),
        ("Names.1=a", "ValidationException", "Names.1"),
    ] {
        let answer = door.query(&format!("Action=PutMeter&{form}")).await;
        assert_eq!((answer.status, &*answer.code()), (400, code), "{form}: {}", answer.text());
        assert!(answer.text().contains(text), "{form}: {}", answer.text());
    }
    let deep = format!("Action=PutMeter&{}PartName=a", "Parts.member.1.Sub.member.1.".repeat(1_000));
    assert_eq!(door.query(&deep).await.code(), "SerializationException");
}

#[tokio::test]
async fn actions_and_versions_must_be_known() {
    let door = Door::new();
    assert_eq!(door.query("Action=Other").await.code(), "InvalidAction");
    assert_eq!(door.query("Action=PutMeter&Version=1999-01-01&WidgetName=a").await.code(), "InvalidAction");
    assert_eq!(door.query("WidgetName=a").await.code(), "MissingAction");
}

#[tokio::test]
async fn errors_before_the_operation_is_known_have_the_namespace_too() {
    let door = Door::new();
    let request = http::Request::post("/").header("content-type", "application/x-www-form-urlencoded");
    let late = crate::fixture::sign("meters", request, &"Action=ResetMeter".into(), 0);
    let answer = door.send(late).await;
    assert_eq!((answer.status, &*answer.code()), (403, "SignatureDoesNotMatch"));
    assert!(
        answer
            .text()
            .starts_with("<ErrorResponse xmlns=\"https://meters.example/doc/\"><Error><Type>Sender</Type>")
    );
}
