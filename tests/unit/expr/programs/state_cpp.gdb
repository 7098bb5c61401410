# Commands whose answers are compared with gdb's, in this order: assignments have effect.
p object
p *base
p base
p *this
p this
p side
p id
p name
p kind
p flag
p doubled
p instances
p kLimit
p this->side
p this->id
p shapes::counter
p ::shapes::counter
p counter
p hidden
p shapes::hidden
p shapes::Derived::instances
p shapes::Kind::kSquare
p kind == shapes::Kind::kSquare
p (shapes::Kind)0
p (shapes::Kind)9
p reference
p &reference
p *&reference
p reference + 1
p base_reference
p box
p text_box
p box.content
p empty
p wide16
p wide
p truth
p !truth
p 1 == 1
p 1 && 0
p true
p false
p with_reference
p with_reference.r
p target
p sizeof(shapes::Derived)
p sizeof(Empty)
p &object
p &object.side
p object.name
p object.id
p (shapes::Base *)&object
p (shapes::Named *)&object
p *(shapes::Named *)&object
p *(shapes::Derived *)base
p object.nothing
p nosuch
p shapes::nosuch
p nosuch::x
p main
p &main
whatis object
whatis base
whatis *base
whatis reference
whatis &reference
whatis this
whatis box
whatis text_box
whatis kind
whatis 1 == 1
whatis truth
whatis wide16
whatis &object.side
whatis shapes::counter
whatis with_reference.c
p/x object.side
p/x *this
p/d kind
x/2dw &target
p reference = 12
p target
p object.side = 4
p side
p instances++
p shapes::Derived::instances
