//! The constant tables.

use api::model::{ErrorTrait, Kind, Location, Protocol, Service, ShapeId, Structure};

fn structure(service: &'static Service, shape: ShapeId) -> &'static Structure {
    match &service.shape(shape).kind {
        Kind::Structure(structure) => structure,
        other => panic!("{other:?} is not a structure"),
    }
}

fn error(service: &'static Service, name: &str) -> ErrorTrait {
    let shape = service.shapes.iter().position(|shape| shape.name == name).unwrap();
    structure(service, shape as ShapeId).error.unwrap()
}

#[test]
fn a_training_job_has_the_required_members_of_the_model() {
    let operation = api::sagemaker::SERVICE.operation("CreateTrainingJob").unwrap();
    let input = structure(&api::sagemaker::SERVICE, operation.input.unwrap());
    let required: Vec<&str> =
        input.members.iter().filter(|member| member.required).map(|member| member.name).collect();
    assert_eq!(required, ["TrainingJobName", "RoleArn", "OutputDataConfig"]);
    let name = &api::sagemaker::SERVICE.shape(input.members[0].shape).kind;
    let Kind::String { min: Some(1), max: Some(63), pattern: Some(pattern), .. } = name else {
        panic!("{name:?}")
    };
    assert!(pattern.contains("[a-zA-Z0-9]"), "{pattern}");
}

#[test]
fn services_have_their_identity_on_the_wire() {
    let sts = &api::sts::SERVICE;
    assert_eq!(sts.xml_namespace, Some("https://sts.amazonaws.com/doc/2011-06-15/"));
    assert_eq!((sts.api_version, sts.protocols), ("2011-06-15", &[Protocol::Query][..]));
    let caller = sts.operation("GetCallerIdentity").unwrap();
    assert_eq!(caller.result_wrapper, Some("GetCallerIdentityResult"));
    let cloudwatch = &api::cloudwatch::SERVICE;
    assert_eq!(cloudwatch.signing_name, "monitoring");
    assert_eq!(cloudwatch.protocols, [Protocol::RpcV2Cbor, Protocol::Json10, Protocol::Query]);
    assert_eq!(api::logs::SERVICE.target_prefix, Some("Logs_20140328"));
    assert_eq!(api::sagemaker_runtime::SERVICE.signing_name, "sagemaker");
}

#[test]
fn members_travel_where_the_model_binds_them() {
    let runtime = &api::sagemaker_runtime::SERVICE;
    let invoke = runtime.operation("InvokeEndpoint").unwrap();
    assert_eq!((invoke.method, invoke.uri), ("POST", "/endpoints/{EndpointName}/invocations"));
    let input = structure(runtime, invoke.input.unwrap());
    assert_eq!(input.payload, Some("Body"));
    let bound = |name: &str| input.members.iter().find(|member| member.name == name).unwrap();
    assert_eq!(bound("EndpointName").location, Location::Uri);
    let content_type = bound("ContentType");
    assert_eq!((content_type.location, content_type.wire_name), (Location::Header, "Content-Type"));
    let streamed = runtime.operation("InvokeEndpointWithResponseStream").unwrap();
    let output = structure(runtime, streamed.output.unwrap());
    let body = output.members.iter().find(|member| member.name == "Body").unwrap();
    assert!(structure(runtime, body.shape).event_stream);
}

#[test]
fn errors_have_their_codes_and_statuses() {
    let none = ErrorTrait { code: None, status: None };
    assert_eq!(error(&api::sagemaker::SERVICE, "ResourceNotFound"), none);
    let missing = ErrorTrait { code: Some("NoSuchEntity"), status: Some(404) };
    assert_eq!(error(&api::iam::SERVICE, "NoSuchEntityException"), missing);
}

#[test]
fn tables_are_whole() {
    assert_eq!(api::SERVICES.len(), 23);
    for service in api::SERVICES {
        assert!(service.operations.is_sorted_by(|one, next| one.name < next.name), "{}", service.id);
        for operation in service.operations {
            for shape in [operation.input, operation.output].into_iter().flatten() {
                structure(service, shape);
            }
            for shape in operation.errors {
                assert!(structure(service, *shape).error.is_some(), "{} {}", service.id, operation.name);
            }
            assert_eq!(service.operation(operation.name).map(|found| found.name), Some(operation.name));
        }
        for shape in service.shapes {
            let inside: Vec<ShapeId> = match &shape.kind {
                Kind::Structure(structure) => structure.members.iter().map(|member| member.shape).collect(),
                Kind::List { member, .. } => vec![*member],
                Kind::Map { key, value, .. } => vec![*key, *value],
                _ => Vec::new(),
            };
            assert!(
                inside.iter().all(|id| (*id as usize) < service.shapes.len()),
                "{} {}",
                service.id,
                shape.name
            );
        }
    }
}
