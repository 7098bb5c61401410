// The agent's flat image inside the keeper.
    .section .rodata
    .balign 4096
    .globl dune_agent_image_begin, dune_agent_image_end
dune_agent_image_begin:
    .incbin AGENT_BIN
dune_agent_image_end:
    .section .note.GNU-stack, "", @progbits
