"""What schemathesis has to know of this API; its environment is another, so nothing of the studio is imported."""

import schemathesis

schemathesis.serializer.alias("application/jsonl", "text/plain")
