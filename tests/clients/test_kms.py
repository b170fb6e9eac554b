"""Keys through the real SDK: what they encrypt comes back, to whom and while it may, in the words of the service."""

import json
import uuid

import pytest

from s3_tools import other_account, refused  # noqa: F401 (fixture)


@pytest.fixture(scope="module")
def kms(server):
    return server.client("kms")


def new_key(kms, **arguments):
    return kms.create_key(**arguments)["KeyMetadata"]


@pytest.fixture
def key(kms):
    return new_key(kms, Description="of a test")


def test_a_key_is_described_and_listed(kms, key):
    assert key["Arn"] == f"arn:aws:kms:us-east-1:{key['AWSAccountId']}:key/{key['KeyId']}"
    assert (key["KeyState"], key["Enabled"], key["KeyManager"]) == ("Enabled", True, "CUSTOMER")
    assert (key["KeyUsage"], key["KeySpec"], key["Origin"]) == ("ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "AWS_KMS")
    assert key["EncryptionAlgorithms"] == ["SYMMETRIC_DEFAULT"]
    for name in (key["KeyId"], key["Arn"]):
        assert kms.describe_key(KeyId=name)["KeyMetadata"] == key
    pages = kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 1})
    listed = [entry for page in pages for entry in page["Keys"]]
    assert {"KeyId": key["KeyId"], "KeyArn": key["Arn"]} in listed
    assert len({entry["KeyId"] for entry in listed}) == len(listed)
    first = kms.list_keys(Limit=1)
    assert first["Keys"] == listed[:1] and first["Truncated"] == (len(listed) > 1)
    kms.update_key_description(KeyId=key["KeyId"], Description="changed")
    assert kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["Description"] == "changed"
    assert kms.get_key_rotation_status(KeyId=key["KeyId"])["KeyRotationEnabled"] is False


def test_what_is_encrypted_comes_back(kms, key):
    context = {"purpose": "test", "ü": "🔑"}
    sealed = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"plain", EncryptionContext=context)
    assert sealed["KeyId"] == key["Arn"] and b"plain" not in sealed["CiphertextBlob"]
    again = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"plain", EncryptionContext=context)
    assert again["CiphertextBlob"] != sealed["CiphertextBlob"]
    for name in ({}, {"KeyId": key["Arn"]}):
        opened = kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=context, **name)
        assert (opened["Plaintext"], opened["KeyId"]) == (b"plain", key["Arn"])
    blob = sealed["CiphertextBlob"]
    refused(kms.decrypt, "InvalidCiphertextException", 400, CiphertextBlob=blob)
    refused(kms.decrypt, "InvalidCiphertextException", 400, CiphertextBlob=blob[:-1] + b"\0\0", EncryptionContext=context)
    refused(kms.decrypt, "InvalidCiphertextException", 400, CiphertextBlob=b"nonsense")
    other = new_key(kms)["KeyId"]
    refused(kms.decrypt, "IncorrectKeyException", 400, CiphertextBlob=blob, EncryptionContext=context, KeyId=other)
    refused(kms.encrypt, "DryRunOperationException", 400, KeyId=other, Plaintext=b"x", DryRun=True)
    refused(kms.encrypt, "ValidationException", 400, KeyId=other, Plaintext=b"x" * 4097)


def test_bytes_move_to_another_key_without_being_shown(kms, key):
    other = new_key(kms)
    sealed = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"plain", EncryptionContext={"a": "1"})["CiphertextBlob"]
    moved = kms.re_encrypt(
        CiphertextBlob=sealed,
        SourceEncryptionContext={"a": "1"},
        DestinationKeyId=other["KeyId"],
        DestinationEncryptionContext={"b": "2"},
    )
    assert (moved["SourceKeyId"], moved["KeyId"]) == (key["Arn"], other["Arn"])
    opened = kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"b": "2"})
    assert (opened["Plaintext"], opened["KeyId"]) == (b"plain", other["Arn"])


def test_data_keys_have_the_length_that_is_asked_for(kms, key):
    for asked, length in (({"KeySpec": "AES_256"}, 32), ({"KeySpec": "AES_128"}, 16), ({"NumberOfBytes": 100}, 100)):
        made = kms.generate_data_key(KeyId=key["KeyId"], **asked)
        assert len(made["Plaintext"]) == length and made["KeyId"] == key["Arn"]
        assert kms.decrypt(CiphertextBlob=made["CiphertextBlob"])["Plaintext"] == made["Plaintext"]
        hidden = kms.generate_data_key_without_plaintext(KeyId=key["KeyId"], **asked)
        assert "Plaintext" not in hidden
        assert len(kms.decrypt(CiphertextBlob=hidden["CiphertextBlob"])["Plaintext"]) == length
    both = {"KeySpec": "AES_256", "NumberOfBytes": 32}
    for asked in ({}, both):
        refused(kms.generate_data_key, "ValidationException", 400, KeyId=key["KeyId"], **asked)
    one, two = (kms.generate_random(NumberOfBytes=64)["Plaintext"] for _ in range(2))
    assert len(one) == 64 and one != two


def test_aliases_name_keys(kms, key):
    alias = f"alias/test-{uuid.uuid4().hex[:12]}"
    kms.create_alias(AliasName=alias, TargetKeyId=key["KeyId"])
    refused(kms.create_alias, "AlreadyExistsException", 400, AliasName=alias, TargetKeyId=key["KeyId"])
    entry = kms.list_aliases(KeyId=key["KeyId"])["Aliases"][0]
    arn = key["Arn"].replace(f"key/{key['KeyId']}", alias)
    assert (entry["AliasName"], entry["AliasArn"], entry["TargetKeyId"]) == (alias, arn, key["KeyId"])
    for name in (alias, arn):
        assert kms.describe_key(KeyId=name)["KeyMetadata"]["KeyId"] == key["KeyId"]
    sealed = kms.encrypt(KeyId=alias, Plaintext=b"plain")["CiphertextBlob"]
    other = new_key(kms)
    kms.update_alias(AliasName=alias, TargetKeyId=other["KeyId"])
    assert kms.describe_key(KeyId=alias)["KeyMetadata"]["KeyId"] == other["KeyId"]
    assert kms.decrypt(CiphertextBlob=sealed)["KeyId"] == key["Arn"], "what is encrypted keeps its key"
    kms.delete_alias(AliasName=alias)
    refused(kms.delete_alias, "NotFoundException", 400, AliasName=alias)
    refused(kms.encrypt, "NotFoundException", 400, KeyId=alias, Plaintext=b"x")
    refused(kms.create_alias, "InvalidAliasNameException", 400, AliasName="name", TargetKeyId=key["KeyId"])
    refused(kms.create_alias, "NotAuthorizedException", 400, AliasName="alias/aws/x", TargetKeyId=key["KeyId"])


def test_a_disabled_key_does_nothing(kms, key):
    sealed = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"plain")["CiphertextBlob"]
    kms.disable_key(KeyId=key["KeyId"])
    assert kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"] == "Disabled"
    refused(kms.encrypt, "DisabledException", 400, KeyId=key["KeyId"], Plaintext=b"x")
    refused(kms.decrypt, "DisabledException", 400, CiphertextBlob=sealed)
    kms.enable_key(KeyId=key["KeyId"])
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"plain"


def test_a_deletion_waits_and_can_be_taken_back(kms, key):
    sealed = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"plain")["CiphertextBlob"]
    refused(kms.schedule_key_deletion, "ValidationException", 400, KeyId=key["KeyId"], PendingWindowInDays=6)
    refused(kms.cancel_key_deletion, "KMSInvalidStateException", 400, KeyId=key["KeyId"])
    scheduled = kms.schedule_key_deletion(KeyId=key["KeyId"], PendingWindowInDays=7)
    assert (scheduled["KeyState"], scheduled["PendingWindowInDays"]) == ("PendingDeletion", 7)
    assert kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["DeletionDate"] == scheduled["DeletionDate"]
    for call, arguments in (
        (kms.encrypt, {"KeyId": key["KeyId"], "Plaintext": b"x"}),
        (kms.decrypt, {"CiphertextBlob": sealed}),
        (kms.enable_key, {"KeyId": key["KeyId"]}),
        (kms.schedule_key_deletion, {"KeyId": key["KeyId"]}),
        (kms.tag_resource, {"KeyId": key["KeyId"], "Tags": [{"TagKey": "a", "TagValue": "b"}]}),
    ):
        refused(call, "KMSInvalidStateException", 400, **arguments)
    kms.cancel_key_deletion(KeyId=key["KeyId"])
    assert kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"] == "Disabled"
    kms.enable_key(KeyId=key["KeyId"])
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"plain"


def test_policies_and_tags_are_kept(kms):
    tags = [{"TagKey": "team", "TagValue": "vision"}, {"TagKey": "stage", "TagValue": "test"}]
    key = new_key(kms, Tags=tags)["KeyId"]
    assert kms.list_resource_tags(KeyId=key)["Tags"] == sorted(tags, key=lambda tag: tag["TagKey"])
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "team", "TagValue": "speech"}])
    kms.untag_resource(KeyId=key, TagKeys=["stage"])
    assert kms.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "team", "TagValue": "speech"}]
    refused(kms.tag_resource, "TagException", 400, KeyId=key, Tags=[{"TagKey": "aws:x", "TagValue": ""}])
    assert kms.list_key_policies(KeyId=key)["PolicyNames"] == ["default"]
    policy = json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    assert policy["Statement"][0]["Action"] == "kms:*"
    policy["Statement"][0]["Sid"] = "mine"
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(policy))
    assert json.loads(kms.get_key_policy(KeyId=key)["Policy"]) == policy
    refused(kms.put_key_policy, "MalformedPolicyDocumentException", 400, KeyId=key, Policy="{")


def test_what_is_not_done_is_refused_by_name(kms, key):
    for asked in ({"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"}, {"Origin": "EXTERNAL"}, {"MultiRegion": True}):
        error = refused(kms.create_key, "UnsupportedOperationException", 400, **asked)
        assert any(name in error["Error"]["Message"] for name in asked)
    error = refused(kms.encrypt, KeyId=key["KeyId"], Plaintext=b"x", GrantTokens=["token"])
    assert "GrantTokens" in error["Error"]["Message"]


def test_keys_belong_to_an_account_and_a_region(server, kms, key, other_account):
    sealed = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"plain")["CiphertextBlob"]
    foreign = server.client("kms", other_account["key"], other_account["secret"])
    refused(foreign.describe_key, "NotFoundException", 400, KeyId=key["KeyId"])
    refused(foreign.encrypt, "AccessDeniedException", 400, KeyId=key["Arn"], Plaintext=b"x")
    refused(foreign.decrypt, "AccessDeniedException", 400, CiphertextBlob=sealed)
    elsewhere = server.client("kms", region="eu-west-1")
    refused(elsewhere.describe_key, "NotFoundException", 400, KeyId=key["KeyId"])
    refused(elsewhere.decrypt, "AccessDeniedException", 400, CiphertextBlob=sealed)
    refused(kms.describe_key, "InvalidArnException", 400, KeyId="arn:aws:s3:::bucket")


def test_keys_outlive_a_crash_and_their_material_is_nowhere(own_server):
    kms = own_server.client("kms")
    key = new_key(kms)["KeyId"]
    data_key = kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    own_server.kill()
    own_server.start()
    kms = own_server.client("kms")
    assert kms.decrypt(CiphertextBlob=data_key["CiphertextBlob"])["Plaintext"] == data_key["Plaintext"]
    own_server.stop()
    master = own_server.data_dir / "keys/master.key"
    assert master.stat().st_mode & 0o777 == 0o600
    log = (own_server.data_dir.parent / "server.log").read_bytes()
    secrets = (data_key["Plaintext"], data_key["Plaintext"].hex().encode(), master.read_bytes().strip())
    for path in [*own_server.data_dir.rglob("*")]:
        if path.is_file() and path != master:
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path
    assert not any(secret in log for secret in secrets)
    own_server.start()
