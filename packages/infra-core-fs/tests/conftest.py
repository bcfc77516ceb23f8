"""Settings that all tests of this package share."""

from hypothesis import settings

# a busy machine makes an example slow, not wrong
settings.register_profile("infra-core-fs", deadline=None)
settings.load_profile("infra-core-fs")
