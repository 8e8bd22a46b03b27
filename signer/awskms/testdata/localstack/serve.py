"""LocalStack's KMS, and nothing else of LocalStack, on a free port of 127.0.0.1, which Werkzeug's first lines name."""

from localstack.aws.app import LocalstackAwsGateway
from localstack.aws.serving.werkzeug import serve
from localstack.services.kms.provider import KmsProvider
from localstack.services.plugins import Service, ServiceManager

services = ServiceManager()
services.add_service(Service.for_provider(KmsProvider()))
serve(LocalstackAwsGateway(services), host="127.0.0.1", port=0, use_reloader=False)
