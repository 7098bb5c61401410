"""What functions_test.py draws from."""
import unittest

import functions_elf as elf
from support import program


class Instructions(unittest.TestCase):
    def test_a_limit_inside_an_instruction_makes_no_others(self):
        path = program("steps")
        begin = elf.function_named(path, "^main$")
        size = elf.functions(path)[begin]
        whole = elf.instructions(path, begin, size)
        self.assertGreater(len(whole), 10)
        for limit in range(1, min(size, 60)):
            self.assertEqual(elf.instructions(path, begin, limit), [a for a in whole if a < begin + limit])


if __name__ == "__main__":
    unittest.main()
