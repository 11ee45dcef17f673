"""Good policies with a few bytes changed, for property tests."""

from hypothesis import strategies as st

GOOD = b"""version: 1
guests: {win11: {controller: {type: devicemodel, version: 3, ports: 15}}}
protect: [{device: "046d:c31c"}]
rules:
  - name: "gaming mouse"
    match: {device: [046d:c016, "*:*"], kind: mouse}
    attach: [win11, linux]
default: host
"""


@st.composite
def mutated(draw):
    """A valid policy with a few bytes removed and a few inserted."""
    text = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 6))
        text[at : at + cut] = draw(
            st.one_of(st.binary(max_size=4), st.text("{}[]:,*&!%@'\"|>-#? \n\t~", max_size=4).map(str.encode))
        )
    return bytes(text)
