# Commands whose answers are compared with gdb's, in this order: assignments have effect.
p/x global_int
p/x global_long
p/x global_schar
p/x global_char
p/x array
p/x points
p/x first
p/x text
p/x message
p/x head
p/x global_float
p/x global_double
p/x global_bool
p/x colour
p/x bits
p/x -1
p/o global_int
p/o array
p/o 0
p/t 10
p/t global_char
p/t -1
p/t 0
p/d global_uchar
p/d global_ulong
p/d global_schar
p/d colour
p/d message
p/d text
p/u global_schar
p/u global_int
p/u -1
p/u bytes
p/c 65
p/c global_int
p/c array
p/c text
p/c bytes
p/c 300
p/c -1
p/a main
p/a &main
p/a &global_int
p/a $pc
p/a 0
p/a (long)main+1
p/f 1
p/f global_float
p/f global_double
p/f 1078530011
p/f 4614253070214989087
p/f global_short
p/f array
p/z global_int
p/z global_char
p/z 5
p/z array
p/s text
p/s message
p/s bytes
p/s array
p/s global_int
p/x 1.5
p/d 1.5
p/c 1.5
p/x "ab"
x/4xw &array
x/8xb text
x/2xg &global_u64
x/4xh &array
x/3dw &array
x/3uw &array
x/2dg &global_long
x/4ob text
x/2ow &array
x/2tb text
x/tw &array
x/5cb text
x/s message
x/s text
x/2s message
x/2a &operation
x/fw &global_float
x/fg &global_double
x/xb 0
x/10xb &bytes
x/5xw array
x/3xg $sp
x/db &global_schar
x/ub &global_schar
whatis global_int
whatis array
whatis &array
whatis matrix
whatis &matrix[1]
whatis first
whatis &first
whatis head->name
whatis message
whatis words
whatis typed_string
whatis add
whatis &add
whatis operation
whatis operations
whatis variadic
whatis main
whatis outer.op
whatis outer.parts
whatis outer.corners
whatis colour
whatis number
whatis typed_point
whatis typed_int
whatis volatile_int
whatis const_int
whatis array_pointer
whatis double_pointer
whatis global_ulong
whatis global_ldouble
whatis global_bool
whatis wide
whatis 1
whatis 1u
whatis 1l
whatis 1ul
whatis 1ull
whatis 1.0
whatis 1.0f
whatis 1.0l
whatis 'a'
whatis "abc"
whatis 1+1l
whatis 1u+1
whatis global_short + 1
whatis global_char + global_char
whatis global_float + 1
whatis global_float + 1.0
whatis 1 == 1
whatis !1
whatis 1 && 1
whatis sizeof(int)
whatis &array[1] - &array[0]
whatis (char)1
whatis (char *)0
whatis (struct list *)0
whatis *head
whatis &head->next
whatis -global_char
whatis ~global_ushort
whatis 1 << 2l
whatis $rip
whatis $sp
whatis $rax
whatis $eax
whatis $ax
whatis $al
whatis $eflags
whatis 2147483648
whatis 4294967295
whatis 0x80000000
whatis 0xffffffff
whatis 0x100000000
whatis 0x8000000000000000
whatis bits.a
whatis global_complex
whatis vla
whatis opaque_pointer
whatis (unsigned long) 5
whatis (const char *) 0
whatis (int (*)(int, char)) 0
whatis (int (*)[3]) 0
whatis (unsigned) 5
whatis (long long) 5
whatis (long double) 5
whatis (short unsigned int) 5
p global_int
p static_int
p global_uint
p global_long
p global_ulong
p global_short
p global_ushort
p global_char
p global_schar
p global_uchar
p global_i8
p global_u64
p global_float
p global_double
p global_ldouble
p global_bool
p array
p matrix
p zeros
p mostly
p text
p exact
p blank
p escapes
p runs
p longer
p bytes
p message
p null_string
p words
p typed_string
p anything
p origin
p points
p same
p typed_point
p bits
p number
p colour
p strange
p flags
p no_flags
p odd_flags
p negative
p typed_int
p volatile_int
p const_int
p opaque_pointer
p int_pointer
p double_pointer
p array_pointer
p third
p second
p first
p wide
p thread_int
p operation
p operations
p outer
p count
p head
p label
p ratio
p by_value
p letter
p local
p calls
p small
p shadowed
p sum
p vla
p inner
p add
p &add
p *add
p main
p &variadic
p variadic
p &global_int
p &array
p &array[1]
p &points[1].y
p &first
p &text
p &message
p *head
p *head->next
p head->next->next->name
p head->name[0]
p *head->name@3
p head->value
p head.value
p (*head).value
p first.next->value
p first->value
p array[0]
p array[4]
p array[1] + array[2]
p *array
p *array@3
p array[1]@2
p *(array+2)
p array + 1
p int_pointer[1]
p int_pointer[-1]
p *int_pointer
p **double_pointer
p (*array_pointer)[3]
p int_pointer + 1
p int_pointer - 1
p &array[4] - &array[1]
p &array[4] - int_pointer
p int_pointer == &array[2]
p int_pointer > &array[0]
p !int_pointer
p !null_string
p null_string == 0
p matrix[1]
p matrix[1][2]
p *matrix
p **matrix
p points[1].x * 10 + points[2].y
p points[1]
p &points[1]
p *&points[1]
p text[0]
p text[1] == 'e'
p &text[1]
p *text@5
p text + 1
p message[2]
p *message
p message + 2
p words[0]
p words[1][1]
p *words
p bits.a
p bits.b
p bits.c
p bits.d
p bits.e
p bits.a + bits.b
p number.f
p number.i
p number.bytes
p outer.as_float
p outer.parts
p outer.parts.hi
p outer.corners[1].y
p outer.where->x
p outer.op
p outer.tint
p outer.tint == BLUE
p colour
p colour + 1
p (enum colour)6
p (enum colour)77
p (enum flags)3
p BLUE
p F_A | F_C
p F_A
p colour == GREEN
p sizeof(int)
p sizeof(struct list)
p sizeof array
p sizeof(array)/sizeof(array[0])
p sizeof(struct point *)
p sizeof(point_t)
p sizeof first
p sizeof(unsigned char)
p sizeof vla
p (char)global_int
p (short)global_long
p (unsigned char)global_short
p (unsigned)-1
p (long)global_int
p (float)global_int
p (int)global_double
p (int)global_float
p (double)1/3
p (float)1/3
p (char *)text
p (void *)message
p (struct point *)&array
p *(struct point *)&array
p ((struct point *)array)[1]
p (u32)-1
p (point_t *)&origin
p (unsigned long)&global_int == (unsigned long)anything
p *(int *)anything
p (int (*)(int, int))operation
p (bool)5
p (long)message != 0
p global_int + global_short
p global_int * 2
p global_uint + 1
p global_uint * 2
p global_long / 3
p global_long % 7
p global_long >> 3
p global_int << 4
p global_int << 40
p global_ulong + 1
p global_ulong >> 60
p -global_int
p ~global_int
p !global_int
p +global_char
p global_char + 1
p global_schar
p global_schar == -1
p global_schar < global_uchar
p global_float * 2
p global_float + global_double
p global_double * global_double
p global_double < 0
p global_ldouble * 2
p global_float == 3.14159f
p global_bool + 1
p !global_bool
p -1 < 1u
p -1 < 1
p 1 ? 2 : 3
p global_int > 40 && global_int < 50
p global_int < 40 || global_int == 42
p global_int > 40 ? 1 : 2
p 1,2,3
p 5/2
p -5/2
p -5%3
p 5/2.0
p 1.0/3
p 1.0f/3
p 10 > 9 > 8
p 2147483647 + 1
p 0x7fffffffffffffff + 1
p 'a'
p '\n'
p '\0'
p '\\'
p '\''
p '\377'
p "abc"
p sizeof("abc")
p "abc"[1]
p 0x10
p 010
p 0b101
p 1e10
p 1.5e-5
p 100000000.0
p 1.0/0
p -1.0/0
p 0.0/0
p 1/0
p 1%0
p 1.5 % 2
p 5 == 5.0
p foo
p first.nothing
p head->nothing
p array.x
p global_int.x
p global_int->x
p *global_double
p *anything
p global_int[0]
p &5
p &global_int + 1
p 5 +
p )
p 1 2
p (int
p 09
p 1z
p "abc
p ''
p $nothing
p $nothing + 1
p $v = 5
p $v
p $v * 2
p $v++
p $v
p ++$v
p $v += 10
p $v == 17
p $s = points[1]
p $s.x
p $s
p $a = array
p $a[2]
p $rip
p $pc
p $sp
p $fp
p $rsp
p $rbp
p $eax
p $cs
p $eflags
p $pc == $rip
p (long)$sp & 7
p $sp - $fp
p 'state.c'::static_int
p 'state.c'::global_int
p {int} &global_int
p {short} &global_int
p {struct point} &array
p struct point
p int
p calls + local
p shadowed + 1
p vla[2]
p inner.p
p by_value.x + by_value.y
p letter - 'a'
p ratio * 4
p label[1]
p *label@5
p &local
p &inner.q
p &head
p head == &first
p head != 0
p count == 4 && head->value == 1
p main + 0
p stop
p *stop
p (long)&((struct list *)0)->value
p &((struct list *)0)->value
p &*head
p array@2
p 1@2
p array[100000000000]
p *(int*)0
p *(char**)8
p (char*)1
p zeros[0]@2
p opaque_pointer == 0
p *opaque_pointer
p sizeof(struct opaque)
p (struct nosuch *)0
p (nosuch)1
p global_i8 + 1
p (global_int)
p ((global_int))
p global_int = 43
p global_int
p global_int += 7
p global_int
p array[2] = 9
p array
p bits.a = 2
p bits
p origin.x = -1
p origin
p $rax = 77
p $rax
p $eax
p $al = 1
p $rax
p small = 5
p small
p global_int++
p global_int
p --global_int
p global_double = 1.25
p global_double
p colour = RED
p colour
p points[0] = points[2]
p points[0]
p 5 = 6
